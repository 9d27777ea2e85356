"""Converts the values of a log line to JSON values, so that log collectors can search them.

In: the arguments of a log call. Out: texts, numbers, true, false, null, and lists or objects of these. Nothing is
shown by repr(): it shows classes and addresses, and may show a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    """A value as JSON; for a type without such a form only the type's name."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) or type(value) is tuple:
        return [plain(each) for each in value]
    if isinstance(value, AbstractSet):
        return sorted(map(plain, value), key=str)
    members = _members(value)
    return (
        _text(value) if members is None else {str(plain(name)): plain(each) for name, each in members.items()}
    )


def _members(value: object) -> Mapping[Any, object] | None:
    """The members of a map, or of a record of ours, by name; None: it is neither."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple):
        return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return None


def _text(value: object) -> str:
    if isinstance(value, BaseException | PurePath):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else type(value).__name__
