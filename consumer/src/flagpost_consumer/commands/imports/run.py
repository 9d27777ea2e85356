"""One import: row by row from the file to Kafka.

In: rows, a function that makes records of them, a sink, a report of refused rows. Out: counts. A run holds one row at
a time, and what the producer has not been told of yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from flagpost_consumer.commands.imports.reading import Reading
from flagpost_consumer.commands.imports.reporting import Report
from flagpost_consumer.commands.imports.row_events import Produced
from flagpost_consumer.commands.imports.rows import Refusal, RowError

PROGRESS_ROWS = 500


class Sink(Protocol):
    """Where records go."""

    acknowledged: int

    def offer(self, line: int, record: Produced) -> bool:
        """Take a record; False: not yet."""

    def finish(self) -> None:
        """Wait until the result of every record is known."""


class Run:
    """The progress of one import."""

    def __init__(self, reports: Iterable[Report]) -> None:
        self.reports = list(reports)
        self.rows = 0
        """Rows that were read."""
        self.refused = 0

    def carry_out(
        self, reading: Reading, sink: Sink, tell: Callable[[], None], interrupted: Callable[[], bool]
    ) -> None:
        """Go through all rows, or until `interrupted`; `tell` is called now and then.

        Raises:
            FileProblem: the file cannot be read further.
            KafkaUnavailable: the sink accepts no more.
        """
        for row in reading.rows:
            if interrupted():
                return
            self.rows += 1
            if self.rows % PROGRESS_ROWS == 0:
                tell()
            if isinstance(row, Refusal):
                self.refuse(row)
                continue
            try:
                record = reading.record_of(row)
            except RowError as error:
                self.refuse(Refusal(row.line, error.column, error.problem, row.text))
                continue
            while not sink.offer(row.line, record):
                if interrupted():
                    return

    def refuse_record(self, line: int, problem: str) -> None:
        """Count a row whose record Kafka refuses, when the row itself is no longer available."""
        self.refuse(Refusal(line, None, problem))

    def refuse(self, refusal: Refusal) -> None:
        """Count and report a row that is not imported."""
        self.refused += 1
        for report in self.reports:
            report.refuse(refusal)
