"""The settings' keys: which exist, which take text as it is, which are secret, and which is meant by a typo.

In: paths of keys, such as `("kafka", "topic")`. Out: answers read off the models in `sections`, so that there is
no second list of keys to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel

from flagpost_consumer.settings.secrets import Secret
from flagpost_consumer.settings.sections import Settings

KeyPath = tuple[str | int, ...]
"""A key's names from the section down; whole numbers are places in a list."""

OTHERS_SECTIONS = ("gateway", "publisher")
"""Sections of the shared file that are checked by the programs they belong to."""

_HIDDEN = (("kafka", "properties"), *((section,) for section in OTHERS_SECTIONS))
"""What may hold secrets under names we do not know."""


def dotted(path: KeyPath) -> str:
    """The key as people write it: `decisions.flags_allow[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def exists(path: KeyPath) -> bool:
    """Whether this is a key, or a section."""
    return path in _annotations()


def is_section(path: KeyPath) -> bool:
    """Whether this holds keys of its own."""
    return any(known[:-1] == path for known in _annotations())


def takes_text(path: KeyPath) -> bool:
    """Whether a variable's text is the value as it stands (else it is JSON)."""
    return _is_text(_annotations()[path])


def may_hold_secret(path: KeyPath) -> bool:
    """Whether a value given at `path` is kept out of messages: secrets, what lies in them, what they lie in."""
    hidden = (*_HIDDEN, *(key for key, annotation in _annotations().items() if _is_secret(annotation)))
    return any(path[: len(key)] == key or key[: len(path)] == path for key in hidden)


def closest(path: KeyPath) -> str | None:
    """The key that was probably meant by one that does not exist: a sibling, or the same name elsewhere."""
    siblings = {str(known[-1]): known for known in _annotations() if known[:-1] == path[:-1]}
    elsewhere = {str(known[-1]): known for known in _annotations()}
    for candidates, likeness in ((siblings, 0.6), (elsewhere, 0.85)):
        for name in get_close_matches(str(path[-1]), candidates, n=1, cutoff=likeness):
            return dotted(candidates[name])
    return None


@cache
def _annotations() -> dict[KeyPath, object]:
    return dict(_walk(Settings, ()))


def _walk(model: type[BaseModel], above: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        yield path, field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, path)


def _is_text(annotation: object) -> bool:
    return all(isinstance(kind, type) and issubclass(kind, str | Secret) for kind in _kinds(annotation))


def _is_secret(annotation: object) -> bool:
    return Secret in _kinds(annotation)


def _kinds(annotation: object) -> list[object]:
    """The types that a value may have, other than None."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part) if kind is not NoneType]
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    return [annotation]
