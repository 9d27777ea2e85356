"""Pendo's rules for the properties of a track event, and the repairs that make properties follow them.

In: properties as an event has them. Out: properties that Pendo accepts, and what was repaired. The rules are those of
Pendo's track event documentation: names of letters, digits and underscore, under 32 characters, no leading digit, not
beginning or ending with two underscores, not `error`; the JSON of all properties under 512 bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, islice, takewhile

import orjson

from flagpost_schemas import Scalar

MAX_NAME_CHARACTERS = 31
MAX_PROPERTIES_BYTES = 511
MAX_PROPERTIES = 85
"""More never fit: the smallest property takes six bytes of JSON, including its comma."""

Properties = dict[str, Scalar]

_VALID_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,30}(?<!__)", re.ASCII)
_FOREIGN_CHARACTER = re.compile(r"[^A-Za-z0-9_]")
_LEADING_UNDERSCORES = re.compile(r"^__+")
_TRAILING_UNDERSCORES = re.compile(r"__+$")


class Rule(StrEnum):
    """A rule of Pendo's that a property can break."""

    NAME_CHARACTERS = "name_characters"
    NAME_DIGIT = "name_digit"
    NAME_UNDERSCORES = "name_underscores"
    NAME_LENGTH = "name_length"
    NAME_COLLISION = "name_collision"
    NAME_RESERVED = "name_reserved"
    SIZE = "size"


RESERVED_ADVICE = (
    "Pendo keeps the name error for itself; have the service call it error_message or error_code"
)
"""What to do about the one reserved name."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One change that was made to follow a rule."""

    rule: Rule
    field: str
    """The property's name in the event."""
    detail: str


def is_sendable(value: Scalar) -> bool:
    """Whether a value can be sent at all: nulls are left out, and JSON has no NaN or infinity."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def size_bytes(properties: Mapping[str, Scalar]) -> int:
    """The size that Pendo limits: the length of the properties as JSON."""
    return len(orjson.dumps(properties))


def trim(
    properties: Mapping[str, Scalar], *, fixed_names: Collection[str] = ()
) -> tuple[Properties, tuple[Repair, ...]]:
    """Return properties that follow every rule, and the repairs that were made.

    `fixed_names` are never renamed; a name that collides with one of them is.
    """
    if _surely_valid(properties, fixed_names):
        return dict(properties), ()
    repairs: list[Repair] = []
    named = _with_valid_names(_first_ones(properties, repairs), fixed_names, repairs)
    return _within_size(named, repairs), tuple(repairs)


def _surely_valid(properties: Mapping[str, Scalar], fixed_names: Collection[str]) -> bool:
    characters = 2
    for name, value in properties.items():
        if name not in fixed_names and (name == "error" or not _VALID_NAME.fullmatch(name)):
            return False
        # A character takes six bytes of JSON at most (\u0000), a number 24 characters.
        characters += len(name) + 4 + (6 * len(value) + 2 if isinstance(value, str) else 24)
    return characters <= MAX_PROPERTIES_BYTES or size_bytes(properties) <= MAX_PROPERTIES_BYTES


def _first_ones(properties: Mapping[str, Scalar], repairs: list[Repair]) -> Mapping[str, Scalar]:
    """The properties that may fit. A hostile record has hundreds of thousands more, and repairing each takes time."""
    repairs.extend(Repair(Rule.SIZE, name, _LEFT_OUT) for name in islice(properties, MAX_PROPERTIES, None))
    return dict(islice(properties.items(), MAX_PROPERTIES))


def _with_valid_names(
    properties: Mapping[str, Scalar], fixed_names: Collection[str], repairs: list[Repair]
) -> Properties:
    # Each used name, and the highest number that was appended to it.
    taken = {name: 1 for name in properties if name in fixed_names}
    valid: Properties = {}
    for field, value in properties.items():
        name = field if field in fixed_names else _valid_name(field, taken, repairs)
        taken.setdefault(name, 1)
        valid[name] = value
    return valid


def _valid_name(field: str, taken: dict[str, int], repairs: list[Repair]) -> str:
    name = field
    for rule, repair in _NAME_REPAIRS:
        repaired = repair(name)
        if repaired != name:
            advice = f": {RESERVED_ADVICE}" if rule is Rule.NAME_RESERVED else ""
            repairs.append(Repair(rule, field, f"renamed to {repaired}{advice}"))
            name = repaired
    if name in taken:
        name = free_name(name, taken)
        repairs.append(Repair(Rule.NAME_COLLISION, field, f"renamed to {name}"))
    return name


def _replace_foreign(name: str) -> str:
    return _FOREIGN_CHARACTER.sub("_", name) or "_"


def _guard_digit(name: str) -> str:
    return f"_{name}" if name[0].isdigit() else name


def _single_outer_underscores(name: str) -> str:
    return _TRAILING_UNDERSCORES.sub("_", _LEADING_UNDERSCORES.sub("_", name))


def _cut(name: str) -> str:
    # The cut may leave two underscores at the end, which breaks another rule.
    return _single_outer_underscores(name[:MAX_NAME_CHARACTERS]) if len(name) > MAX_NAME_CHARACTERS else name


def _unreserve(name: str) -> str:
    return "error_" if name == "error" else name


_NAME_REPAIRS = (
    (Rule.NAME_CHARACTERS, _replace_foreign),
    (Rule.NAME_DIGIT, _guard_digit),
    (Rule.NAME_UNDERSCORES, _single_outer_underscores),
    (Rule.NAME_LENGTH, _cut),
    (Rule.NAME_RESERVED, _unreserve),
)


def free_name(name: str, taken: dict[str, int]) -> str:
    """The name with a number, which is none of `taken`: each used name, and the highest number appended to it."""
    while True:
        taken[name] += 1
        suffix = f"_{taken[name]}"
        candidate = _single_outer_underscores(name[: MAX_NAME_CHARACTERS - len(suffix)] + suffix)
        if candidate not in taken:
            return candidate


_NEVER_DROPPED = ("flag_key", "variation_key")
_LEFT_OUT = "left out: the properties are over 511 bytes"


def _within_size(properties: Properties, repairs: list[Repair]) -> Properties:
    kept = dict(properties)
    size = size_bytes(kept)
    for name in reversed(properties):
        if size <= MAX_PROPERTIES_BYTES:
            return kept
        if name not in _NEVER_DROPPED:
            size -= size_bytes({name: kept.pop(name)}) - 1  # without the two braces, and with a comma
            repairs.append(Repair(Rule.SIZE, name, _LEFT_OUT))
    while (excess := size_bytes(kept) - MAX_PROPERTIES_BYTES) > 0:
        _cut_longest(kept, excess, repairs)
    return kept


def _cut_longest(kept: Properties, excess: int, repairs: list[Repair]) -> None:
    texts = {name: value for name, value in kept.items() if isinstance(value, str)}
    name = max(texts, key=lambda candidate: _json_bytes(texts[candidate]))
    text = texts[name]
    kept[name] = beginning = _beginning(text, _json_bytes(text) - excess)
    repairs.append(Repair(Rule.SIZE, name, f"cut to {len(beginning)} characters"))


def _beginning(text: str, room_bytes: int) -> str:
    """The beginning of a text whose JSON fits in the room. The rest is not looked at, even if it is a megabyte."""
    sizes = accumulate(map(_json_bytes, text))
    return text[: sum(1 for _ in takewhile(lambda size: size <= room_bytes, sizes))]


def _json_bytes(text: str) -> int:
    """The size of a text in JSON, without the quotes."""
    return len(orjson.dumps(text)) - 2
