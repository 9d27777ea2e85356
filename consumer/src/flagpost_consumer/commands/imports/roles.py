"""Which of a row's columns is which field of the event; all others are metadata fields or properties.

In: the type of the import, `--id`, the names of the columns. Out: a column for each field that has one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flagpost_consumer.commands.imports.rows import RowError

_NAMES = {
    "visitor": {
        "visitor_id": ("visitorid", "id"),
        "occurred_at": ("occurredat",),
        "account_id": ("accountid",),
    },
    "account": {"account_id": ("accountid", "id"), "occurred_at": ("occurredat",)},
    "track": {
        "visitor_id": ("visitorid",),
        "anonymous_id": ("anonymousid",),
        "event": ("event",),
        "occurred_at": ("occurredat", "timestamp"),
        "account_id": ("accountid",),
        "properties": ("properties",),
        "context.ip": ("contextip",),
        "context.user_agent": ("contextuseragent",),
        "context.url": ("contexturl",),
        "context.title": ("contexttitle",),
        "context.locale": ("contextlocale",),
    },
}
"""By type and field: the possible names of a column, the best first. Case and punctuation do not matter, so Pendo's
own `visitorId` and `Visitor ID` are the same. Names used by tools that sync tables to Pendo are included.
"""

CONTEXT = "context."
"""The prefix for the members of an event's context."""
PROPERTIES = "properties"

_ID_FIELDS = {"visitor": "visitor_id", "account": "account_id", "track": "visitor_id"}
_PUNCTUATION = re.compile(r"[\W_]+")


KEPT_SHAPES = 256
MAX_KEPT_CHARACTERS = 16_384
"""How many shapes of rows are kept, and how long the names of one may be in all: 4 MB together."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one kind of row."""

    column_of: dict[str, str]
    """Field of the event to column."""

    @property
    def occurred_at(self) -> str | None:
        """The column that says when it occurred."""
        return self.column_of.get("occurred_at")

    @property
    def holds_objects(self) -> bool:
        """Whether a column is part of an object of the event, or contains one."""
        return any(field == PROPERTIES or field.startswith(CONTEXT) for field in self.column_of)


class RoleFinder:
    """Finds the roles of columns by their names."""

    def __init__(self, type_name: str, id_column: str | None) -> None:
        self._names = _NAMES[type_name]
        self._id_field = _ID_FIELDS[type_name]
        self._id_column = id_column
        self._find_short = lru_cache(KEPT_SHAPES)(self._find)

    def find(self, names: tuple[str, ...]) -> Roles:
        """Like `_find`, but remembers the result: JSON lines have few shapes. Very long ones are not remembered."""
        is_short = sum(map(len, names)) <= MAX_KEPT_CHARACTERS
        return self._find_short(names) if is_short else self._find(names)

    def _find(self, names: tuple[str, ...]) -> Roles:
        """The roles of these columns.

        Raises:
            RowError: a required column is missing.
        """
        column_of = {
            field: column
            for field, wanted in self._names.items()
            if (column := _first(wanted, names)) is not None
        }
        if self._id_column is not None:
            if self._id_column not in names:
                raise RowError(
                    self._id_column,
                    "is given with --id, but there is no such column; give the name of a column",
                )
            column_of = {field: column for field, column in column_of.items() if column != self._id_column}
            column_of[self._id_field] = self._id_column
        self._require(column_of)
        return Roles(column_of)

    def _require(self, column_of: dict[str, str]) -> None:
        if not {self._id_field, "anonymous_id"} & column_of.keys():
            raise RowError(self._id_field, "is not among the columns; give the column of the ids with --id")
        if "event" in self._names and "event" not in column_of:
            raise RowError("event", "is not among the columns; it must hold the name of the event")


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    for spelling in wanted:
        for name in names:
            if _PUNCTUATION.sub("", name).lower() == spelling:
                return name
    return None
