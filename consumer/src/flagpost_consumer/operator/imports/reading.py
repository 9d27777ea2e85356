"""The rows of a file, and what makes records of them, as the options say.

In: an open file, options, settings. Out: a `Reading`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flagpost_consumer.operator.imports.csv_rows import CsvRows
from flagpost_consumer.operator.imports.files import Source
from flagpost_consumer.operator.imports.json_rows import JsonRows
from flagpost_consumer.operator.imports.options import Options
from flagpost_consumer.operator.imports.roles import RoleFinder
from flagpost_consumer.operator.imports.row_events import Produced, RowEvents
from flagpost_consumer.operator.imports.rows import Refusal, Row
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import MetadataGroup


class Reading(NamedTuple):
    """What an import goes through."""

    rows: Iterable[Row | Refusal]
    record_of: Callable[[Row], Produced]
    """Gives the record of a row; raises RowError."""
    events: RowEvents


def read_rows(source: Source, options: Options, settings: Settings) -> Reading:
    """Begin to read.

    Raises:
        FileProblem: the file has no header that can be used.
    """
    roles = RoleFinder(options.type_name, options.id_column)
    group = MetadataGroup(options.group or MetadataGroup.CUSTOM)
    events = RowEvents(
        options.type_name, group, roles, engine_policy(settings), settings.kafka.max_event_bytes
    )
    if options.format == "jsonl":
        return Reading(JsonRows(source.stream), lambda row: events.from_json(row.members, _now_ms()), events)
    rows = CsvRows(
        source.stream,
        roles,
        delimiter=options.delimiter,
        typed=options.columns,
        clears=options.empty == "clear",
    )
    return Reading(rows, lambda row: events.from_cells(row.members, rows.roles, _now_ms()), events)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
