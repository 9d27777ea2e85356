"""Avro bodies from values: a schema compiled to a function that checks and writes in one pass.

In: an `AvroSchema`'s parsed form; then values (records as objects with the fields as attributes, or the outermost
record's fields as arguments). Out: the body's bytes, or EncodeError naming record, field and the type of the value.
fastavro's writer is not used: it accepts "no" for true, True for 1 and 2**70 for a double, and needs 13 us for a
decision (this: 2 us), for which the application would wait. The tests compare the bytes of both.

A record's function is made from source text, like dataclasses make theirs: an expression for each field takes half
the time of a call for each. The function only notices that something does not fit; then the fields' writers find out
what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

from flagpost_schemas.bounded import Parsed
from flagpost_schemas.errors import EncodeError

Write: TypeAlias = Callable[[Any], bytes]
"""Writes one value; raises _Misfit if the value does not fit the schema."""

KEPT = 1024
"""How many different values of recurring fields are cached, with their bytes."""

KEPT_BYTES = 512
"""Limit of these bytes: recurring values are short, and long ones must not fill the memory."""

_SURROGATES = "a str with lone surrogates, which UTF-8 cannot hold"
_DOUBLE = Struct("<d")
_MIN_TIME = 1 << 32
_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1


class _Misfit(Exception):  # noqa: N818 - never leaves this module
    """A value does not fit the schema; `path` grows on the way up to the record."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""


class _TooLongToKeep(Exception):  # noqa: N818 - never leaves this module
    """Recurring fields contain more than may be cached."""


_Telling: TypeAlias = Callable[[_Misfit], Exception]
"""The exception for a misfit."""


class _Field(NamedTuple):
    name: str
    schema: Parsed
    write: Write


def compile_body(parsed: dict[str, Any], recurring: frozenset[str] = frozenset()) -> Write:
    """A function from an object with the record's fields as attributes to its Avro body.

    Handles records, enums, maps, arrays, unions, fixed and the primitives. The function raises EncodeError.
    `recurring`: names of fields, also in nested records, whose values repeat often, and are strings, enums, booleans
    or frozen records of strings. The bytes of adjacent ones are cached together.
    """
    return _object_writer(_fields(parsed, {}, recurring), recurring, _telling_of(parsed))


def compile_fields(parsed: dict[str, Any], recurring: frozenset[str] = frozenset()) -> Callable[..., bytes]:
    """Like `compile_body`, but the function takes all of the record's fields, by name or in order."""
    return _fields_writer(_fields(parsed, {}, recurring), recurring, _telling_of(parsed))


def _telling_of(parsed: dict[str, Any]) -> _Telling:
    record = parsed["name"].rpartition(".")[2]
    return lambda misfit: EncodeError(record, misfit.path, misfit.problem)


def _telling_further(misfit: _Misfit) -> _Misfit:
    return misfit


def _fields(record: dict[str, Any], named: dict[str, Write], recurring: frozenset[str]) -> list[_Field]:
    return [
        _Field(field["name"], field["type"], _writer(field["type"], named, recurring))
        for field in record["fields"]
    ]


def _writer(schema: Parsed, named: dict[str, Write], recurring: frozenset[str]) -> Write:
    if isinstance(schema, list):
        return _union([(branch, _writer(branch, named, recurring)) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else named[schema]
    match schema["type"]:
        case "record":
            write = _object_writer(_fields(schema, named, recurring), recurring, _telling_further)
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
    named[schema["name"]] = write
    return write


def _object_writer(fields: list[_Field], recurring: frozenset[str], tell: _Telling) -> Write:
    write_fields = _fields_writer(fields, recurring, tell)
    names = [field.name for field in fields]
    get = attrgetter(*names)
    members = get if len(names) > 1 else lambda value: (get(value),)

    def write(value: object) -> bytes:
        try:
            found = members(value)
        except AttributeError as missing:
            misfit = _Misfit(f"{_kind(value)} without {missing.name}")
        else:
            return write_fields(*found)
        raise tell(misfit)  # outside of the handler: the handled exception may contain the value

    return write


_FUNCTION = """
def write({names}):
    try:
        return b"".join(({members},))
    except _misfits:
        pass  # the error is raised outside: what is handled may hold the value
    except _too_long:
        return _keeping_nothing({names})
    raise _error({names})
"""
_TEXT = "_length[len(_raw := _utf8({name}))] + _raw"


def _fields_writer(fields: list[_Field], recurring: frozenset[str], tell: _Telling) -> Callable[..., bytes]:
    """A function of the fields' values. Its other names begin with an underscore, which no field does."""
    known: dict[str, Any] = {
        "_error": _first_misfit(fields, tell),
        "_misfits": (_Misfit, TypeError, UnicodeEncodeError),
        "_too_long": _TooLongToKeep,
        "_keeping_nothing": _fields_writer(fields, frozenset(), tell) if recurring else None,
        "_length": _LONGS,
        "_utf8": str.encode,
    }
    runs = groupby(fields, lambda field: field.name in recurring)
    members = [_kept([*run], known) if recurs else _members([*run], known) for recurs, run in runs]
    source = _FUNCTION.format(names=_names(fields), members=", ".join(members))
    exec(source, known)  # noqa: S102 - made of our own schemas
    write: Callable[..., bytes] = known["write"]
    return write


def _names(fields: list[_Field]) -> str:
    return ", ".join(field.name for field in fields)


def _kept(run: list[_Field], known: dict[str, Any]) -> str:
    """The expression for adjacent recurring fields. The cache is typed, because True and 1 are equal, but not in
    Avro.
    """
    function = f"_kept_{run[0].name}"
    known[function] = lru_cache(KEPT, typed=True)(_short(_fields_writer(run, frozenset(), _telling_further)))
    return f"{function}({_names(run)})"


def _short(write: Callable[..., bytes]) -> Callable[..., bytes]:
    """Like `write`, but raises for more bytes than may be cached, so that they are not."""

    def write_short(*values: object) -> bytes:
        written = write(*values)
        if len(written) > KEPT_BYTES:
            raise _TooLongToKeep
        return written

    return write_short


def _members(run: list[_Field], known: dict[str, Any]) -> str:
    return ", ".join(_member(field, known) for field in run)


def _member(field: _Field, known: dict[str, Any]) -> str:
    """The expression for one field; most are strings."""
    name, text = field.name, _TEXT.format(name=field.name)
    known[f"_write_{name}"] = field.write
    match _kinds(field.schema):
        case ["string"]:
            return text
        case ["null", "string"]:
            return f"b'\\x00' if {name} is None else b'\\x02' + {text}"
        case ["null", _]:
            return f"b'\\x00' if {name} is None else _write_{name}({name})"
    return f"_write_{name}({name})"


def _first_misfit(fields: list[_Field], tell: _Telling) -> Callable[..., Exception]:
    """A function that finds out what is wrong with values that do not fit."""

    def first_misfit(*values: object) -> Exception:
        for field, value in zip(fields, values, strict=True):
            try:
                field.write(value)
            except _Misfit as misfit:
                return tell(_within(misfit, field.name))
            except UnicodeEncodeError:
                return tell(_within(_Misfit(_SURROGATES), field.name))
        return tell(_Misfit("a value that changed while it was written"))

    return first_misfit


def _map(write_value: Write) -> Write:
    def write(value: object) -> bytes:
        if not value and isinstance(value, dict):
            return b"\x00"
        if not isinstance(value, dict):
            raise _Misfit(f"{_kind(value)} where a dict is wanted")
        parts = [b""]
        for name, member in value.items():
            parts.append(_string(name))
            try:
                parts.append(write_value(member))
            except _Misfit as misfit:
                raise _within(misfit, "*") from None  # the name may be personal, too
        # A class of the application's may list more or less than its len().
        if len(parts) == 1:
            return b"\x00"
        parts[0] = _LONGS[len(parts) // 2]
        parts.append(b"\x00")
        return b"".join(parts)

    return write


def _array(write_item: Write) -> Write:
    def write(value: object) -> bytes:
        if not isinstance(value, list | tuple):
            raise _Misfit(f"{_kind(value)} where a list is wanted")
        if not value:
            return b"\x00"
        items = [*map(write_item, value)]
        return b"".join((_LONGS[len(items)], *items, b"\x00")) if items else b"\x00"

    return write


def _union(branches: list[tuple[Parsed, Write]]) -> Write:
    if len(branches) == 2 and branches[0][0] == "null":
        return _nullable(*branches[1])
    return _any_union(branches)


def _nullable(schema: Parsed, write: Write) -> Write:
    if _name(schema) == "string":
        return nullable_string

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


def _kinds(schema: Parsed) -> list[str]:
    return [_name(branch) for branch in schema] if isinstance(schema, list) else [_name(schema)]


def _name(schema: Parsed) -> str:
    """A type's name, such as `string` or `map`; `union` for one inside a union."""
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
    if type(value) is int and _MIN_TIME < value <= _MAX_LONG:  # most are times: nothing else is checked
        rest = value << 1
        return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80)) + _seven_bits_a_byte(rest >> 14)
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
    return _LONGS[len(raw)] + raw


def nullable_string(value: object) -> bytes:
    """A text or None."""
    if value is None:
        return b"\x00"
    if not isinstance(value, str):
        raise _Misfit(f"{_kind(value)} where null or string is wanted")
    return b"\x02" + _string(value)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _Misfit(f"{_kind(value)} where bytes are wanted")
    return _LONGS[len(value)] + value


def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, the least significant first."""
    rest = value << 1 if value >= 0 else ~(value << 1)
    if rest < 1 << 14:
        return _seven_bits_a_byte(rest)
    return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80)) + _seven_bits_a_byte(rest >> 14)


@lru_cache(1024)  # small numbers recur, and so do the high bits of a time in milliseconds: for 8 s
def _seven_bits_a_byte(rest: int) -> bytes:
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class _Longs(dict[int, bytes]):
    """Lengths and counts as Avro longs. Most are small, and cached here."""

    def __missing__(self, value: int) -> bytes:
        return _long(value)


_LONGS = _Longs({value: _long(value) for value in range(512)})


def write_long(value: int) -> bytes:
    """A 64-bit number: zigzag, seven bits a byte."""
    return _LONGS[value]


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
