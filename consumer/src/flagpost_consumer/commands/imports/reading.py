"""Reads the rows of a file, and makes records of them, according to the options.

In: an open file, options, settings. Out: a `Reading`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from flagpost_consumer.commands.check.fields import pendo_type
from flagpost_consumer.commands.imports.columns import PENDO_TYPES
from flagpost_consumer.commands.imports.csv_rows import CsvRows
from flagpost_consumer.commands.imports.files import Source
from flagpost_consumer.commands.imports.json_rows import JsonRows
from flagpost_consumer.commands.imports.options import Options
from flagpost_consumer.commands.imports.roles import RoleFinder
from flagpost_consumer.commands.imports.row_events import Produced, RowEvents
from flagpost_consumer.commands.imports.rows import Refusal, Row, RowError
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import MetadataGroup

FIRST_ROWS = 100
"""How many JSON lines are searched for the fields that a file sets; only one from a pipe, because the next may come
late.
"""


class Reading(NamedTuple):
    """The rows of an import, and how they become records."""

    rows: Iterable[Row | Refusal]
    record_of: Callable[[Row], Produced]
    """Returns the record of a row; raises RowError."""
    events: RowEvents
    fields: Mapping[str, str]
    """The metadata fields that the beginning of the file sets, each with Pendo's type of field."""


def read_rows(source: Source, options: Options, settings: Settings) -> Reading:
    """Start reading.

    Raises:
        FileProblem: the file has no usable header.
    """
    is_metadata = options.type_name != "track"
    roles = RoleFinder(options.type_name, options.id_column)
    group = MetadataGroup(options.group or MetadataGroup.CUSTOM)
    events = RowEvents(
        options.type_name, group, roles, engine_policy(settings), settings.kafka.max_event_bytes
    )
    if options.format == "jsonl":
        json_rows = iter(JsonRows(source.stream))
        first = list(islice(json_rows, FIRST_ROWS if source.total_bytes else 1)) if is_metadata else []
        return Reading(
            chain(first, json_rows),
            lambda row: events.from_json(row.members, _now_ms()),
            events,
            _fields_of(first, roles),
        )
    rows = CsvRows(
        source.stream,
        roles,
        delimiter=options.delimiter,
        typed=options.columns,
        clears=options.empty == "clear",
    )
    return Reading(
        rows,
        lambda row: events.from_cells(row.members, rows.roles, _now_ms()),
        events,
        {column.name: PENDO_TYPES[column.type] for column in rows.fields} if is_metadata else {},
    )


def _fields_of(rows: Iterable[Row | Refusal], roles: RoleFinder) -> dict[str, str]:
    """The fields that JSON rows set."""
    fields: dict[str, str] = {}
    for row in rows:
        if isinstance(row, Refusal):
            continue
        values = row.members.get("values")
        if not isinstance(values, dict):
            with suppress(RowError):  # it will be refused for it
                ours = roles.find(tuple(row.members)).column_of.values()
                values = {name: value for name, value in row.members.items() if name not in ours}
        for name, value in (values or {}).items():
            fields.setdefault(name, pendo_type(value))
    return fields


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
