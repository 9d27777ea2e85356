"""Nested properties to flat ones, by one rule for the gateway, preview, import and the publisher.

In: a mapping as JSON gives it. Out: names to scalars: objects within are flattened with `_`, lists of scalars
are joined with `,` (null members left out), other lists become `<name>_count`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flagpost_schemas.events import Scalar

MAX_DEPTH = 32
"""How deep objects may nest: real ones do not, and a cycle must end."""


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `nested` as flat names and scalars, in their order.

    A name that is taken already gets `_2`, `_3`, … (the rule CONTRACT gives for `trim`). A value that is
    neither scalar, mapping nor list is kept as it is, for encoding to refuse. Raises ValueError when objects
    nest deeper than 32.
    """
    flat: dict[str, Any] = {}
    for name, value in _members(nested, "", MAX_DEPTH):
        flat[_free_name(name, flat)] = value
    return flat


def _members(nested: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == 0:
        raise ValueError(f"objects nest deeper than {MAX_DEPTH}; send flatter ones")
    for name, value in nested.items():
        full_name = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _members(value, f"{full_name}_", depth - 1)
        elif isinstance(value, list | tuple):
            yield _list_member(full_name, value)
        else:
            yield full_name, value


def _list_member(name: str, members: list[Any] | tuple[Any, ...]) -> tuple[str, Any]:
    if all(isinstance(member, Scalar) for member in members):
        return name, ",".join(_text(member) for member in members if member is not None)
    return f"{name}_count", len(members)


def _text(scalar: object) -> str:
    """As JSON writes it, without the quotes of a string."""
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return str(scalar)


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
