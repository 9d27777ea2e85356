"""Flattens nested properties, by one rule for the gateway, preview, import and the publisher.

In: a mapping from JSON. Out: names to scalars: nested objects are flattened with `_`, lists of scalars are joined
with `,` (null members left out), other lists become `<name>_count`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flagpost_schemas.events import Scalar

MAX_DEPTH = 32
"""How deep objects may nest: real ones do not, and a cycle must end."""

MAX_ADDED_CHARACTERS = 100_000
"""How much names may grow in all: the names of outer objects are repeated for each member, so that without a limit
350 KB of JSON become 400 MB of names.
"""


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `nested` as flat names and scalars, in order.

    A name that is already used gets `_2`, `_3`, … (like in `trim`, docs/contract.md#requests-to-pendo). A value that
    is neither scalar, mapping nor list is kept unchanged, so that encoding refuses it. Raises ValueError if objects
    nest deeper than 32, or names would grow by more than 100,000 characters in all.
    """
    flat: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    left = MAX_ADDED_CHARACTERS
    for prefix, name, value in _members(nested, "", MAX_DEPTH):
        left -= len(prefix)
        if left < 0:
            raise ValueError(
                "names of objects are too long for so many members; send flatter or shorter ones"
            )
        flat[_free_name(prefix + name, flat, numbers)] = value
    return flat


def _members(nested: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """Prefix, name and value of each member that is not an object."""
    if depth == 0:
        raise ValueError(f"objects nest deeper than {MAX_DEPTH}; send flatter ones")
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _members(value, f"{prefix}{name}_", depth - 1)
        elif isinstance(value, list | tuple):
            yield (prefix, *_list_member(name, value))
        else:
            yield prefix, name, value


def _list_member(name: str, members: list[Any] | tuple[Any, ...]) -> tuple[str, Any]:
    if all(isinstance(member, Scalar) for member in members):
        return name, ",".join(_text(member) for member in members if member is not None)
    return f"{name}_count", len(members)


def _text(scalar: object) -> str:
    """The text as in JSON, without the quotes of a string."""
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return str(scalar)


def _free_name(name: str, taken: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """`numbers` holds how far each name has been counted: names stay used, so counting need not start from 2
    again.
    """
    free = name
    while free in taken:
        numbers[name] = numbers.get(name, 1) + 1
        free = f"{name}_{numbers[name]}"
    return free
