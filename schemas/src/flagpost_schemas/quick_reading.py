"""Reads events and ledger records in a schema of our own in one pass: the schema is compiled to a function.

In: a record's class, its schema's parsed form; then values. Out: the record, or None for anything unusual: damage, a
negative length, a map written in blocks of known size. fastavro reads that, more slowly, and says what is wrong. A
decision takes fastavro and its conversion 8 us (this: 3 us), a settlement 6 us (this: 2.5 us). The tests compare
both.

A record's function is made from source text, as in `body`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import groupby, product
from struct import Struct
from typing import Any, TypeAlias, TypeVar

from flagpost_schemas.bounded import Parsed
from flagpost_schemas.events import Context, MetadataGroup, Source
from flagpost_schemas.zigzag import Unusual, read_long

Made = TypeVar("Made")
Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
"""Reads a value at a place; returns it and where it ends. Raises what `_ODD` names."""

_DOUBLE = Struct("<d")
_OF_EVENTS: Mapping[str, type] = {"Context": Context, "Source": Source}
_ENUMS: dict[str, type[Enum]] = {"MetadataGroup": MetadataGroup}
"""The enums that symbols become; those of other enums stay texts."""

_NEVER: tuple[bytes, ...] = ()
"""Nothing begins with one of these."""
_SURE_BYTES = 9
"""A number of this many bytes has less than 64 bits."""
_IF_THERE = ("size = value[at]", "at += 1", "if size:", "    if size != 2:", "        raise Unusual")
"""The statements before a nullable value."""

_ODD = (Unusual, IndexError, UnicodeDecodeError)

_STEPS = tuple(0 if size & 129 else 2 + (size >> 1) for size in range(256))
"""How far to go behind a nullable text, by its length's first byte; 0: that is not the only one."""
_LONG_BYTES = 6
"""Numbers of up to this many bytes are read in place: offsets, and times in milliseconds until the year 2039."""


def _long() -> Iterator[str]:
    """Statements that read a number, byte by byte; the last `else` is left open, for longer ones."""
    yield from ("if (low := value[at]) < 128:", "    number = (low >> 1) ^ -(low & 1)", "    at += 1")
    for last in range(1, _LONG_BYTES):
        between = [f"(byte_{place} & 127) << {7 * place - 1}" for place in range(1, last)]
        bits = " | ".join(["low >> 1 & 63", *between, f"byte_{last} << {7 * last - 1}"])
        yield f"elif (byte_{last} := value[at + {last}]) < 128:"
        yield from (f"    number = ({bits}) ^ -(low & 1)", f"    at += {last + 1}")


_LONG = (*_long(),)


def compile_reading(
    made: type[Made],
    parsed: dict[str, Any],
    records: Mapping[str, type] = _OF_EVENTS,
    passed_over: Collection[str] = (),
) -> Callable[[bytes, int], Made | None]:
    """A function that reads a record from a place in a value to its end; None: leave it to fastavro.

    Args:
        made: the record's class.
        parsed: its schema.
        records: the classes of nested records.
        passed_over: fields of nested named tuples that are not needed: each gets its default. Their values must still
        be valid, so that a damaged record is damaged for every reader.
    """
    names: dict[str, Any] = {
        "_odd": _ODD,
        "Unusual": Unusual,
        "_length": _length,
        "_make": object.__new__,
    }
    lines = [*_Compiler(records, names, frozenset(passed_over)).record(made, parsed["fields"], "found")]
    body = "\n".join(f"        {line}" for line in lines)
    source = f"""
def read(value, at):
    try:
{body}
    except _odd:
        return None
    return found if at == len(value) else None
"""
    exec(source, names)  # noqa: S102 - made of our own schemas
    read: Callable[[bytes, int], Made | None] = names["read"]
    return read


class _Compiler:
    """Makes the statements, and the names that they use."""

    def __init__(
        self, records: Mapping[str, type], names: dict[str, Any], passed_over: frozenset[str]
    ) -> None:
        self._records = records
        self._names = names
        self._passed_over = passed_over

    def record(self, made: type, fields: list[dict[str, Any]], into: str) -> Iterator[str]:
        """Statements that read a record: field by field, as its own `__init__` would, in half the time."""
        self._names[f"_class_{into}"] = made
        if issubclass(made, tuple):
            yield from self._tuple(made, fields, into)
            return
        for field in fields:
            yield from self._value(field["type"], f"{into}_{field['name']}")
        yield f"{into} = _make(_class_{into})"
        for field in fields:
            name = f"{into}_{field['name']}"
            self._names[f"_set_{name}"] = getattr(made, field["name"]).__set__
            yield f"_set_{name}({into}, {name})"

    def _tuple(self, made: type, fields: list[dict[str, Any]], into: str) -> Iterator[str]:
        self._names["_make_tuple"] = tuple.__new__
        defaults: Mapping[str, Any] = getattr(made, "_field_defaults", {})
        values = []
        for is_passed_over, several in groupby(fields, lambda field: field["name"] in self._passed_over):
            run = list(several)
            if is_passed_over:
                yield from self._pass_over(run)
                values += [repr(defaults[field["name"]]) for field in run]
                continue
            for is_enum, beside in groupby(run, lambda field: _is_enum_of_texts(field["type"])):
                together = list(beside)
                names = [f"{into}_{field['name']}" for field in together]
                values += names
                if is_enum and len(together) > 1:
                    yield from self._enums([field["type"]["symbols"] for field in together], names)
                    continue
                for field, name in zip(together, names, strict=True):
                    yield from self._value(field["type"], name)
        yield f"{into} = _make_tuple(_class_{into}, ({', '.join(values)},))"

    def _enums(self, symbols: list[list[str]], names: list[str]) -> Iterator[str]:
        """Statements that read enums beside each other, a byte each, as one."""
        size, numbered = len(names), [list(enumerate(each)) for each in symbols]
        self._names[f"_symbols_{names[0]}"] = {
            bytes(2 * number for number, _ in each): tuple(symbol for _, symbol in each)
            for each in product(*numbered)
        }
        yield f"several = _symbols_{names[0]}.get(value[at : at + {size}])"
        yield from ("if several is None:", "    raise Unusual")
        yield from (f"{', '.join(names)} = several", f"at += {size}")

    def _pass_over(self, fields: list[dict[str, Any]]) -> Iterator[str]:
        """Statements that skip the values of some fields.

        Adjacent texts are decoded as one, with the bytes between them, which are ASCII if the texts have values and
        lengths of one byte. A longer length ends such a stretch.
        """
        for is_text, several in groupby(fields, lambda field: field["type"] == ["null", "string"]):
            if not is_text:
                for field in several:
                    yield from self._pass_over_one(field["type"])
                continue
            self._names["_steps"] = _STEPS
            yield "begin = at"
            for _ in several:
                yield from (
                    "if (there := value[at]) == 2:",
                    "    if step := _steps[value[at + 1]]:",
                    "        at += step",
                    "    else:",
                    "        value[begin : at + 1].decode()",
                    "        size, begin = _length(value, at + 1)",
                    "        at = begin + (size >> 1)",
                    "elif there:",
                    "    raise Unusual",
                    "else:",
                    "    at += 1",
                )
            yield "value[begin:at].decode()"

    def _pass_over_one(self, schema: Parsed) -> Iterator[str]:
        match schema:
            case "long" | "int" | {"type": "long"}:
                yield from ("begin = at", "while value[at] > 127:", "    at += 1", "at += 1")
                yield from (f"if at - begin > {_SURE_BYTES}:", "    raise Unusual")
            case ["null", inner]:
                yield from _IF_THERE
                yield from (f"    {line}" for line in self._pass_over_one(inner))
            case {"type": "fixed", "size": int(size)}:
                yield f"at += {size}"
            case _:
                raise NotImplementedError(schema)

    def _value(self, schema: Parsed, into: str) -> Iterator[str]:
        """Statements that read one value into a variable."""
        match schema:
            case "string":
                yield from (
                    "size = value[at]",
                    "at += 1",
                    "if size & 129:",  # negative, or of more than one byte
                    "    size, at = _length(value, at - 1)",
                    "end = at + (size >> 1)",
                    f"{into} = value[at:end].decode()",
                    "at = end",
                )
            case "boolean":
                yield from ("if value[at] > 1:", "    raise Unusual", f"{into} = value[at] == 1", "at += 1")
            case "long" | "int" | {"type": "long"}:
                self._names["read_long"] = read_long
                yield from _LONG
                yield from ("else:", "    number, at = read_long(value, at)")
                yield f"{into} = number"
            case ["null", inner]:
                yield from (
                    "if value[at] == 0:",
                    f"    {into} = None",
                    "    at += 1",
                    "elif value[at] == 2:",
                )
                yield "    at += 1"
                yield from (f"    {line}" for line in self._value(inner, into))
                yield from ("else:", "    raise Unusual")
            case {"type": "fixed", "size": int(size)}:
                yield from (f"{into} = value[at : at + {size}]", f"at += {size}")
            case {"type": "record", "name": str(name), "fields": list(fields)}:
                made = self._records[_short(name)]
                lines = self.record(made, fields, into)
                yield from self._recurring(lines, into) if made is Source else lines
            case {"type": "array", "items": {"type": "record"} as items}:
                yield from (f"{into} = []", f"{into}_left, at = _length(value, at)", f"while {into}_left:")
                yield f"    for _ in range({into}_left >> 1):"
                yield from (f"        {line}" for line in self._value(items, f"{into}_item"))
                yield f"        {into}.append({into}_item)"
                yield f"    {into}_left, at = _length(value, at)"
            case _:
                yield from self._less_common(schema, into)

    def _less_common(self, schema: Parsed, into: str) -> Iterator[str]:
        match schema:
            case {"type": "enum", "symbols": list(symbols)} if _is_enum_of_texts(schema):
                self._names[f"_symbols_{into}"] = {2 * number: each for number, each in enumerate(symbols)}
                yield from (f"{into} = _symbols_{into}.get(value[at])", "at += 1")
                yield from (f"if {into} is None:", "    raise Unusual")
            case _:
                self._names[f"_read_{into}"] = _reader(schema)
                yield f"{into}, at = _read_{into}(value, at)"

    def _recurring(self, lines: Iterable[str], into: str) -> Iterator[str]:
        """If the bytes equal those of the previous record, it is the same record, which is frozen. Bytes say where
        they end.
        """
        self._names[f"_last_{into}"] = [(_NEVER, None)]
        yield f"last, {into} = _last_{into}[0]"
        yield "if value.startswith(last, at):"
        yield "    at += len(last)"
        yield "else:"
        yield "    start = at"
        yield from (f"    {line}" for line in lines)
        yield f"    _last_{into}[0] = value[start:at], {into}"


def _is_enum_of_texts(schema: Parsed) -> bool:
    match schema:
        case {"type": "enum", "name": str(name)}:
            return _short(name) not in _ENUMS
    return False


def _reader(schema: Parsed) -> Read:
    match schema:
        case {"type": "map", "values": values}:
            return _map(_reader(values))
        case {"type": "array", "items": items}:
            return _array(_reader(items))
        case {"type": "enum", "name": name, "symbols": symbols}:
            made = _ENUMS.get(_short(name), str)
            return _enum([made(symbol) for symbol in symbols])
        case {"type": inner}:
            return _reader(inner)
        case list():
            return _union([_reader(branch) for branch in schema])
        case _:
            return _PRIMITIVES[schema]


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _length(value: bytes, at: int) -> tuple[int, int]:
    """A length that is not a plain byte, twice, and where it ends."""
    length, at = read_long(value, at)
    if length < 0:
        raise Unusual
    return length << 1, at


def _string(value: bytes, at: int) -> tuple[str, int]:
    size, at = _length(value, at)
    end = at + (size >> 1)
    return value[at:end].decode(), end


def _boolean(value: bytes, at: int) -> tuple[bool, int]:
    if value[at] > 1:
        raise Unusual
    return value[at] == 1, at + 1


def _double(value: bytes, at: int) -> tuple[float, int]:
    end = at + 8
    if end > len(value):
        raise Unusual
    return _DOUBLE.unpack_from(value, at)[0], end


def _null(_: bytes, at: int) -> tuple[None, int]:
    return None, at


_PRIMITIVES: dict[Any, Read] = {
    "string": _string,
    "long": read_long,
    "boolean": _boolean,
    "double": _double,
    "null": _null,
}


def _union(branches: list[Read]) -> Read:
    by_byte = {2 * number: read for number, read in enumerate(branches)}

    def read(value: bytes, at: int) -> tuple[Any, int]:
        branch = by_byte.get(value[at])
        if branch is None:
            raise Unusual
        return branch(value, at + 1)

    return read


def _enum(members: Sequence[Enum | str]) -> Read:
    by_byte = {2 * number: member for number, member in enumerate(members)}

    def read(value: bytes, at: int) -> tuple[Any, int]:
        member = by_byte.get(value[at])
        if member is None:
            raise Unusual
        return member, at + 1

    return read


def _map(read_value: Read) -> Read:
    def read(value: bytes, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        if value[at] == 0:
            return found, at + 1
        count, at = _length(value, at)
        while count:
            for _ in range(count >> 1):
                name, at = _string(value, at)
                found[name], at = read_value(value, at)
            count, at = _length(value, at)
        return found, at

    return read


def _array(read_item: Read) -> Read:
    def read(value: bytes, at: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        count, at = _length(value, at)
        while count:
            for _ in range(count >> 1):
                item, at = read_item(value, at)
                found.append(item)
            count, at = _length(value, at)
        return found, at

    return read
