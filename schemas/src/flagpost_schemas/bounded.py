"""Whether reading with a schema costs no more than the bytes given.

In: a schema parsed by fastavro, possibly from a registry that anybody can write to. Out: nothing, or SchemaError.
With these shapes a few bytes can cost without limit: a type inside itself (the reader's C stack overflows), records
that each contain the one before twice (20 of them are a million reads, of no bytes at all), and an array whose items
take no bytes, or many reads a byte (a count of 2**62 takes ten bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from flagpost_schemas.errors import SchemaError

Parsed: TypeAlias = "str | list[Parsed] | dict[str, Any]"
"""A schema as parsed by fastavro: a type's name, a union, or an object with `type`."""

MAX_NODES = 2_000
"""Types in a schema, each counted wherever it is used; Flagpost's own schemas have less than 100."""
MAX_DEPTH = 64
"""Nested types."""
MAX_READS_PER_BYTE = 16
"""Types that are read for each byte of an array's items or a map's values; a real schema has 2 to 5."""

_PRIMITIVE_BYTES = {
    "null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1,
}  # fmt: skip
"""The smallest size of a value of a primitive type."""
_MAP_KEY_BYTES = 1


@dataclass(frozen=True, slots=True)
class _Cost:
    """The cost of reading one value of a type."""

    nodes: int
    """Types inside it, including itself."""
    reads: int
    """The most types that are read for one value: for a union, those of one branch; for an array or a map, without
    those of its items, which are compared with their own bytes.
    """
    least_bytes: int


def require_bounded(parsed: Parsed) -> None:
    """Raise SchemaError if data with the schema `parsed` can cost more than its length."""
    _cost(parsed, {}, 0)


def _cost(schema: Parsed, named: dict[str, _Cost], depth: int) -> _Cost:
    """The cost of `schema`; `named` collects the costs of named types."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"its types are nested more than {MAX_DEPTH} deep")
    cost = _cost_of_kind(schema, named, depth + 1)
    if cost.nodes > MAX_NODES:
        raise SchemaError(f"it has more than {MAX_NODES} types, those in what it refers to counted each time")
    return cost


def _cost_of_kind(schema: Parsed, named: dict[str, _Cost], depth: int) -> _Cost:
    if isinstance(schema, list):
        branches = [_cost(branch, named, depth) for branch in schema]
        least = min((branch.least_bytes for branch in branches), default=0)
        reads = max((branch.reads for branch in branches), default=0)
        # The number of the branch takes a byte.
        return _Cost(1 + sum(branch.nodes for branch in branches), 1 + reads, 1 + least)
    if isinstance(schema, str):
        return _cost_of_name(schema, named)
    match schema["type"]:
        case "array":
            items = _cost(schema["items"], named, depth)
            _require_items_take_bytes(items)
            return _Cost(1 + items.nodes, 1, 1)
        case "map":
            values = _cost(schema["values"], named, depth)
            _require_few_reads(1 + values.reads, _MAP_KEY_BYTES + values.least_bytes)
            return _Cost(1 + values.nodes, 1, 1)
        case "record" | "fixed" | "enum":
            named[schema["name"]] = definition = _cost_of_definition(schema, named, depth)
            return definition
        case inner:
            return _cost(inner, named, depth)


def _cost_of_name(name: str, named: dict[str, _Cost]) -> _Cost:
    """A named type is missing from `named` until it is complete: if it occurs before that, it is recursive."""
    if name in _PRIMITIVE_BYTES:
        return _Cost(1, 1, _PRIMITIVE_BYTES[name])
    if name not in named:
        raise SchemaError(f"the type {name} contains itself; Flagpost reads no recursive schemas")
    return named[name]


def _cost_of_definition(schema: dict[str, Any], named: dict[str, _Cost], depth: int) -> _Cost:
    match schema["type"]:
        case "record":
            fields = [_cost(field["type"], named, depth) for field in schema["fields"]]
            return _Cost(
                1 + sum(field.nodes for field in fields),
                1 + sum(field.reads for field in fields),
                sum(field.least_bytes for field in fields),
            )
        case "fixed":
            return _Cost(1, 1, max(0, schema["size"]))
        case _:
            return _Cost(1, 1, 1)


def _require_items_take_bytes(items: _Cost) -> None:
    if not items.least_bytes:
        raise SchemaError("an array's items take no bytes; Flagpost reads no such arrays")
    _require_few_reads(items.reads, items.least_bytes)


def _require_few_reads(reads: int, least_bytes: int) -> None:
    if reads > MAX_READS_PER_BYTE * least_bytes:
        raise SchemaError(
            f"the items of an array or a map have {reads} types in {least_bytes} bytes; "
            f"Flagpost reads at most {MAX_READS_PER_BYTE} a byte"
        )
