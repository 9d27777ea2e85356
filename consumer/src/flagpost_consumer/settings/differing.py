"""Which settings differ from their defaults, for the log's first line.

In: the settings. Out: texts `key=value`. What may be secret, or an id, is named without its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson
from pydantic import BaseModel

from flagpost_consumer.settings.sections import Settings
from flagpost_settings.keys import Keys, dotted
from flagpost_settings.plain_fields import plain
from flagpost_settings.problems import KeyPath

MAX_SHOWN_CHARACTERS = 120
HIDDEN = "***"
_HOLD_IDS = ("select", "accounts")
"""Logs contain no ids."""


def differing(settings: Settings) -> list[str]:
    """Each setting that differs from its default, in the order of the sections."""
    keys = Keys(Settings)
    return [f"{dotted(path)}={_shown(keys, path, value)}" for path, value in _given((), settings, Settings())]


def _given(path: KeyPath, section: BaseModel, default: BaseModel) -> Iterator[tuple[KeyPath, object]]:
    for name in type(section).model_fields:
        value, usual = getattr(section, name), getattr(default, name)
        if isinstance(value, BaseModel):
            yield from _given((*path, name), value, usual)
        elif value != usual:
            yield (*path, name), value


def _shown(keys: Keys, path: KeyPath, value: object) -> str:
    if path[: len(_HOLD_IDS)] == _HOLD_IDS:
        return HIDDEN
    if keys.may_hold_secret(path):  # of librdkafka's properties, only the names
        return ",".join(sorted(value)) if isinstance(value, Mapping) else HIDDEN
    text = value if isinstance(value, str) else orjson.dumps(plain(value)).decode()
    return text[:MAX_SHOWN_CHARACTERS]
