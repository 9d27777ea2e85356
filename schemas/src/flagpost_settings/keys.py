"""The keys of a program's settings: which exist, which take plain text, which are secret, what a typo meant.

In: the program's model, and paths of keys such as `("kafka", "topic")`. Out: answers from the model, so that there is
no second list of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel

from flagpost_settings.problems import KeyPath
from flagpost_settings.secrets import Secret
from flagpost_settings.section import SECTIONS


def dotted(path: KeyPath) -> str:
    """The key as people write it: `decisions.flags_allow[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


class Keys:
    """The keys of one program."""

    def __init__(self, model: type[BaseModel]) -> None:
        """`model` has a field for each section; one that ignores extra keys belongs to another program."""
        self._annotations: dict[KeyPath, object] = dict(_walk(model, ()))
        partly = {name for name, field in model.model_fields.items() if _ignores_extra(field.annotation)}
        own = model.model_fields.keys()
        self.others = frozenset(name for name in SECTIONS if name not in own or name in partly)
        """Sections of the shared file that other programs check."""
        self.unread = self.others - own
        """Those of which this program reads nothing."""
        self._hidden = (
            (
                "kafka",
                "properties",
            ),  # may hold secrets under names that we do not know, like all that is not ours
            *((section,) for section in self.others),
            *(path for path in self._annotations if self.is_secret(path)),
        )

    @property
    def variables(self) -> dict[str, KeyPath]:
        """Every environment variable that is read, and its key."""
        return {_variable(path): path for path in self._annotations if len(path) > 1}

    def exists(self, path: KeyPath) -> bool:
        """Whether this is a key, or a section."""
        return path in self._annotations

    def is_section(self, path: KeyPath) -> bool:
        """Whether this contains keys."""
        return any(known[:-1] == path for known in self._annotations)

    def takes_text(self, path: KeyPath) -> bool:
        """Whether a variable's text is the value itself (otherwise it is JSON)."""
        return _is_text(self._annotations[path])

    def is_secret(self, path: KeyPath) -> bool:
        """Whether the values of this key are secrets."""
        return _is_secret(self._annotations[path])

    def may_hold_secret(self, path: KeyPath) -> bool:
        """Whether a value at `path` is kept out of messages: secrets, what is inside them, and what contains them."""
        return any(path[: len(key)] == key or key[: len(path)] == path for key in self._hidden)

    def closest(self, path: KeyPath) -> str | None:
        """The key that was probably meant by an unknown one: a sibling, or the same name elsewhere."""
        known = [*self._annotations, *((section,) for section in self.unread)]
        siblings = {str(each[-1]): each for each in known if each[:-1] == path[:-1]}
        elsewhere = {str(each[-1]): each for each in known}
        for candidates, likeness in ((siblings, 0.6), (elsewhere, 0.85)):
            for name in get_close_matches(str(path[-1]), candidates, n=1, cutoff=likeness):
                return dotted(candidates[name])
        return None


def _variable(path: KeyPath) -> str:
    return "FLAGPOST_" + "__".join(map(str, path)).upper()


def _ignores_extra(annotation: object) -> bool:
    return _is_model(annotation) and annotation.model_config.get("extra") == "ignore"


def _walk(model: type[BaseModel], above: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        yield path, field.annotation
        if _is_model(field.annotation):
            yield from _walk(field.annotation, path)


def _is_text(annotation: object) -> bool:
    return all(isinstance(kind, type) and issubclass(kind, str | Secret) for kind in _kinds(annotation))


def _is_secret(annotation: object) -> bool:
    return any(kind is Secret or _holds_secrets(kind) for kind in _kinds(annotation))


def _holds_secrets(kind: object) -> bool:
    """Whether it is a list of secrets, or a map of sections that have some."""
    if get_origin(kind) is dict:
        kind = get_args(kind)[1]
        return _is_model(kind) and any(_is_secret(field.annotation) for field in kind.model_fields.values())
    return get_origin(kind) is list and any(_is_secret(member) for member in get_args(kind))


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: object) -> list[object]:
    """The types that a value may have, other than None."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part) if kind is not NoneType]
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    return [annotation]
