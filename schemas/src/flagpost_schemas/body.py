"""Avro bodies from values: a schema compiled to a function that checks and writes in one pass.

In: an `AvroSchema`'s parsed form; then values (records as objects with the fields as attributes).
Out: the body's bytes, or EncodeError naming record, field and the type of what was given.
fastavro's writer is not used: it takes "no" for true, True for 1 and 2**70 for a double, and a decision
takes it 13 us (this: 4 us), which the application would wait for. The tests hold the two to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, call
from struct import Struct
from typing import Any, TypeAlias

from flagpost_schemas.bounded import Parsed
from flagpost_schemas.errors import EncodeError

Write: TypeAlias = Callable[[Any], bytes]
"""Writes one value; raises _Misfit when the value is not what the schema wants."""

_DOUBLE = Struct("<d")
_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1


class _Misfit(Exception):  # noqa: N818 - never leaves this module
    """A value is not what the schema wants; `path` grows on the way up to the record."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""


def compile_body(parsed: dict[str, Any], recurring: frozenset[str] = frozenset()) -> Write:
    """A function from an object with the record's fields as attributes to its Avro body.

    Handles records, enums, maps, arrays, unions, fixed and the primitives. The function raises EncodeError.
    `recurring`: full names of records within whose values are frozen, and mostly the same object as the time
    before: its bytes are kept.
    """
    write = _writer(parsed, {}, recurring)
    record = parsed["name"].rpartition(".")[2]

    def body(value: object) -> bytes:
        try:
            return write(value)
        except _Misfit as misfit:
            error = EncodeError(record, misfit.path, misfit.problem)
        raise error  # outside of the handler: what was handled may hold the value

    return body


def _writer(schema: Parsed, named: dict[str, Write], recurring: frozenset[str]) -> Write:
    if isinstance(schema, list):
        return _union([(branch, _writer(branch, named, recurring)) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else named[schema]
    match schema["type"]:
        case "record":
            write = _record(
                [(field["name"], _writer(field["type"], named, recurring)) for field in schema["fields"]]
            )
        case "enum":
            write = _enum(schema["symbols"])
        case "fixed":
            write = _fixed(schema["size"])
        case "map":
            return _map(_writer(schema["values"], named, recurring))
        case "array":
            return _array(_writer(schema["items"], named, recurring))
        case inner:
            return _writer(inner, named, recurring)
    named[schema["name"]] = _keeping_last(write) if schema["name"] in recurring else write
    return named[schema["name"]]


def _keeping_last(write: Write) -> Write:
    last: tuple[object, bytes] = (None, b"")

    def write_unless_same(value: object) -> bytes:
        nonlocal last
        known, raw = last  # one name, so that threads see a pair that belongs together
        if value is not known:
            raw = write(value)
            last = (value, raw)
        return raw

    return write_unless_same


def _record(fields: list[tuple[str, Write]]) -> Write:
    names = tuple(name for name, _ in fields)
    writers = tuple(write for _, write in fields)
    members = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)

    def write(value: object) -> bytes:
        try:
            return b"".join(map(call, writers, members(value)))
        except AttributeError as error:
            raise _Misfit(f"{_kind(value)} without {error.name}") from None
        except (_Misfit, UnicodeEncodeError):
            raise _first_misfit(zip(names, writers, members(value), strict=True)) from None

    return write


def _first_misfit(fields: Iterable[tuple[str, Write, object]]) -> _Misfit:
    """What is wrong with a record of which some field is known to misfit: found only when it is."""
    for name, write, member in fields:
        try:
            write(member)
        except _Misfit as misfit:
            return _within(misfit, name)
        except UnicodeEncodeError:
            return _within(_Misfit("a str with lone surrogates, which UTF-8 cannot hold"), name)
    return _Misfit("a value that changed while it was written")


def _map(write_value: Write) -> Write:
    def write(value: object) -> bytes:
        if not value and isinstance(value, dict):
            return b"\x00"
        if not isinstance(value, dict):
            raise _Misfit(f"{_kind(value)} where a dict is wanted")
        parts = [_long(len(value))]
        for name, member in value.items():
            parts.append(_string(name))
            try:
                parts.append(write_value(member))
            except _Misfit as misfit:
                raise _within(misfit, "*") from None  # the name may be personal, too
        parts.append(b"\x00")
        return b"".join(parts)

    return write


def _array(write_item: Write) -> Write:
    def write(value: object) -> bytes:
        if not isinstance(value, list | tuple):
            raise _Misfit(f"{_kind(value)} where a list is wanted")
        if not value:
            return b"\x00"
        return b"".join((_long(len(value)), *map(write_item, value), b"\x00"))

    return write


def _union(branches: list[tuple[Parsed, Write]]) -> Write:
    names = [_name(schema) for schema, _ in branches]
    if names == ["null", "string"]:
        return _nullable_string
    if len(names) == 2 and names[0] == "null":
        return _nullable(branches[1][1])
    return _any_union(branches)


def _nullable(write: Write) -> Write:
    def write_nullable(value: object) -> bytes:
        return b"\x00" if value is None else b"\x02" + write(value)

    return write_nullable


def _any_union(branches: list[tuple[Parsed, Write]]) -> Write:
    by_class: dict[type, tuple[bytes, Write]] = {}
    record: tuple[bytes, Write] | None = None
    for number, (schema, write) in enumerate(branches):
        branch = (_long(number), write)
        classes = _UNION_CLASSES.get(_name(schema))
        if classes is None:
            record = branch
        else:
            by_class.update(dict.fromkeys(classes, branch))
    wanted = " or ".join(_name(schema) for schema, _ in branches)

    def write_union(value: object) -> bytes:
        branch = by_class.get(type(value)) or _branch_of_subclass(value, by_class) or record
        if branch is None:
            raise _Misfit(f"{_kind(value)} where {wanted} is wanted")
        number, write = branch
        return number + write(value)

    return write_union


def _branch_of_subclass(
    value: object, by_class: dict[type, tuple[bytes, Write]]
) -> tuple[bytes, Write] | None:
    return next((branch for each, branch in by_class.items() if isinstance(value, each)), None)


def _name(schema: Parsed) -> str:
    """A primitive's or a complex type's name, such as `string` or `map`; `union` for one within."""
    while isinstance(schema, dict):
        schema = schema["type"]
    return schema if isinstance(schema, str) else "union"


def _enum(symbols: list[str]) -> Write:
    numbers = {symbol: _long(number) for number, symbol in enumerate(symbols)}

    def write(value: object) -> bytes:
        number = numbers.get(value) if isinstance(value, str) else None
        if number is None:
            raise _Misfit(f"{_kind(value)} where one of {', '.join(symbols)} is wanted")
        return number

    return write


def _fixed(size: int) -> Write:
    def write(value: object) -> bytes:
        if not isinstance(value, bytes) or len(value) != size:
            raise _Misfit(f"{_kind(value)} where {size} bytes are wanted")
        return value

    return write


def _null(value: object) -> bytes:
    if value is not None:
        raise _Misfit(f"{_kind(value)} where None is wanted")
    return b""


def _boolean(value: object) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise _Misfit(f"{_kind(value)} where a bool is wanted")


def _integer(value: object) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Misfit(f"{_kind(value)} where an int is wanted")
    if not _MIN_LONG <= value <= _MAX_LONG:
        raise _Misfit("an int beyond 64 bits")
    return _long(value)


def _double(value: object) -> bytes:
    if not isinstance(value, float):
        raise _Misfit(f"{_kind(value)} where a float is wanted")
    return _DOUBLE.pack(value)


def _string(value: object) -> bytes:
    if not isinstance(value, str):
        raise _Misfit(f"{_kind(value)} where a str is wanted")
    raw = value.encode()
    size = len(raw)
    return (_SMALL_LONGS[size] if size < 512 else _any_long(size)) + raw


def _nullable_string(value: object) -> bytes:
    """The union of most fields, in one call: each takes as long as the writing."""
    if value is None:
        return b"\x00"
    if not isinstance(value, str):
        raise _Misfit(f"{_kind(value)} where null or string is wanted")
    raw = value.encode()
    size = len(raw)
    return b"\x02" + (_SMALL_LONGS[size] if size < 512 else _any_long(size)) + raw


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _Misfit(f"{_kind(value)} where bytes are wanted")
    return _long(len(value)) + value


def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, the least significant first."""
    if 0 <= value < len(_SMALL_LONGS):
        return _SMALL_LONGS[value]
    return _any_long(value)


def _any_long(value: int) -> bytes:
    rest = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL_LONGS = tuple(_any_long(value) for value in range(512))
"""Most lengths and counts."""


def _within(misfit: _Misfit, name: str) -> _Misfit:
    misfit.path = f"{name}.{misfit.path}" if misfit.path else name
    return misfit


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


_PRIMITIVES: dict[str, Write] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
}
_UNION_CLASSES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "double": (float,),
    "string": (str,),
    "bytes": (bytes,),
    "fixed": (bytes,),
    "map": (dict,),
    "array": (list, tuple),
    "enum": (str,),
}
