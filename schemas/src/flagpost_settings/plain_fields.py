"""The values of a log line, as whatever collects logs can search them: JSON, and nothing of Python's own.

In: what a log call was given. Out: texts, numbers, true, false, null, and lists or objects of these. Nothing is shown
by repr(): that tells of classes and addresses, and what no repr() was thought of may tell a secret.
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
    """A value as JSON has it; of what has no form there only its kind is told."""
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
    """What a map, or a record of ours, holds by name; None: it is none."""
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
