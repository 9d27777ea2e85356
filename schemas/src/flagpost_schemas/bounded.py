"""Whether reading with a schema costs no more than the bytes given.

In: a schema parsed by fastavro, maybe from a registry anybody can write to. Out: nothing, or SchemaError.
Two shapes let a few bytes cost without bound: a type within itself (the reader's C stack runs out) and an
array whose items take no bytes (a count of 2**62 is ten bytes long).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from flagpost_schemas.errors import SchemaError

Parsed: TypeAlias = "str | list[Parsed] | dict[str, Any]"
"""A schema as fastavro parses it: a type's name, a union, or an object with `type`."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def require_bounded(parsed: Parsed) -> None:
    """Raise SchemaError if data of the schema `parsed` can cost more than its length."""
    _takes_bytes(parsed, {})


def _takes_bytes(schema: Parsed, named: dict[str, bool]) -> bool:
    """Whether each value of `schema` takes a byte at least; `named` collects the answers for named types."""
    if isinstance(schema, list):
        for branch in schema:
            _takes_bytes(branch, named)
        return True  # the number of the branch, whatever the branch
    if isinstance(schema, str):
        return _name_takes_bytes(schema, named)
    match schema["type"]:
        case "array":
            _require_items_take_bytes(schema["items"], named)
        case "map":
            _takes_bytes(schema["values"], named)
        case "record" | "fixed" | "enum":
            return _definition_takes_bytes(schema, named)
        case inner:
            return _takes_bytes(inner, named)
    return True  # an array or a map: its count


def _name_takes_bytes(name: str, named: dict[str, bool]) -> bool:
    """A named type is missing from `named` until all of it has been looked at: met before, it is recursive."""
    if name in _PRIMITIVES:
        return name != "null"
    if name not in named:
        raise SchemaError(f"the type {name} contains itself; Flagpost reads no recursive schemas")
    return named[name]


def _definition_takes_bytes(schema: dict[str, Any], named: dict[str, bool]) -> bool:
    match schema["type"]:
        case "record":
            fields = [_takes_bytes(field["type"], named) for field in schema["fields"]]  # looks at each
            takes_bytes = any(fields)
        case "fixed":
            takes_bytes = schema["size"] > 0
        case _:
            takes_bytes = True
    named[schema["name"]] = takes_bytes
    return takes_bytes


def _require_items_take_bytes(items: Parsed, named: dict[str, bool]) -> None:
    if not _takes_bytes(items, named):
        raise SchemaError("an array's items take no bytes; Flagpost reads no such arrays")
