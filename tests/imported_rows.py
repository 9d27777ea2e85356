"""Runs `flagpost import` on a file's bytes, without Kafka: the events, and the rows that it refuses."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from flagpost_consumer.commands.imports.files import Source
from flagpost_consumer.commands.imports.options import Options
from flagpost_consumer.commands.imports.reading import read_rows
from flagpost_consumer.commands.imports.row_events import Produced
from flagpost_consumer.commands.imports.rows import Refusal
from flagpost_consumer.commands.imports.run import Run
from flagpost_consumer.settings import Settings
from flagpost_schemas import Decoder, Event


@dataclass(slots=True)
class Imported:
    """A sink and a report that keep what they receive."""

    records: list[tuple[int, Produced]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    acknowledged: int = 0

    def offer(self, line: int, record: Produced) -> bool:
        self.records.append((line, record))
        return True

    def finish(self) -> None:
        pass

    def refuse(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    @property
    def events(self) -> list[Event]:
        decode = Decoder().decode
        return [decode(record.value) for _, record in self.records]

    @property
    def lines(self) -> list[int]:
        """The line of each imported row."""
        return [line for line, _ in self.records]

    @property
    def refused(self) -> list[tuple[int, str | None]]:
        """Line and column of each refused row."""
        return [(refusal.line, refusal.column) for refusal in self.refusals]


def options_of(type_name: str, file_format: str = "csv", **given: Any) -> Options:
    """The command's options, with defaults for those that are not given."""
    usual = {
        "id_column": None,
        "group": None,
        "delimiter": None,
        "columns": (),
        "empty": None,
        "refused_path": None,
        "dry_run": False,
        "as_json": False,
    }
    path = f"rows.{file_format}"
    return Options(path=path, type_name=type_name, file_format=file_format, **{**usual, **given})


def import_bytes(
    content: bytes,
    type_name: str,
    file_format: str = "csv",
    *,
    settings: Settings | None = None,
    id_column: str | None = None,
    group: str | None = None,
    delimiter: str | None = None,
    columns: tuple[str, ...] = (),
    empty: str | None = None,
) -> Imported:
    """Import a file; raises FileProblem as the command does."""
    options = options_of(
        type_name,
        file_format,
        id_column=id_column,
        group=group,
        delimiter=delimiter,
        columns=columns,
        empty=empty,
    )
    found = Imported()
    run = Run([found])
    source = Source(io.BytesIO(content), len(content))
    run.carry_out(read_rows(source, options, settings or Settings()), found, lambda: None, lambda: False)
    assert run.rows == len(found.records) + len(found.refusals), "each row is imported or refused"
    return found
