"""Whether reading with a schema costs no more than the bytes given.

In: a schema parsed by fastavro, maybe from a registry anybody can write to. Out: nothing, or SchemaError.
Two shapes let a few bytes cost without bound: a type within itself (the reader's C stack runs out) and an
array whose items take no bytes (a count of 2**62 is ten bytes long).
"""

from __future__ import annotations

from typing import Any

from flagpost_schemas.errors import SchemaError


def require_bounded(parsed: dict[str, Any]) -> None:
    """Raise SchemaError if data of the schema `parsed` can cost more than its length."""
    named: dict[str, bool] = {}
    _takes_bytes(parsed, named)


def _takes_bytes(schema: Any, named: dict[str, bool]) -> bool:
    """Whether each value of `schema` takes a byte at least; `named` collects the answers for named types.

    A named type is missing from `named` until all of it has been looked at: meeting it before is recursion.
    """
    if isinstance(schema, list):  # the branch's number takes one, whatever the branch
        for branch in schema:
            _takes_bytes(branch, named)
        return True
    if isinstance(schema, str):
        return _named_takes_bytes(schema, named)
    match schema["type"]:
        case "record":
            fields = [_takes_bytes(field["type"], named) for field in schema["fields"]]
            named[schema["name"]] = any(fields)
            return any(fields)
        case "fixed":
            named[schema["name"]] = schema["size"] > 0
            return named[schema["name"]]
        case "enum":
            named[schema["name"]] = True
            return True
        case "array":
            _require_items_take_bytes(schema["items"], named)
            return True
        case "map":
            _takes_bytes(schema["values"], named)
            return True
        case inner:
            return _takes_bytes(inner, named)


def _named_takes_bytes(name: str, named: dict[str, bool]) -> bool:
    if name in _PRIMITIVES:
        return name != "null"
    if name not in named:
        raise SchemaError(f"the type {name} contains itself; Flagpost reads no recursive schemas")
    return named[name]


def _require_items_take_bytes(items: Any, named: dict[str, bool]) -> None:
    if not _takes_bytes(items, named):
        raise SchemaError("an array's items take no bytes; Flagpost reads no such arrays")


_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
