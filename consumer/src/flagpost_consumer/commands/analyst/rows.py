"""Settlements as rows of a table, as they are in the ledger.

In: settings, a window, a filter. Out: rows, those of each partition in order; memory does not grow with their number.
A delivery has one row, unless two members settled it, or one member wrote it twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.reconcile.topics import Topics
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.commands.tail import FIELDS
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import LedgerEntry

COLUMNS: Final = ("partition", "settled_at", *FIELDS)
"""As in `flagpost tail --json`."""
TIMES: Final = frozenset({"settled_at", "occurred_at"})
"""Columns of epoch ms."""

Row = tuple[Any, ...]
"""One value for each column."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which settlements are wanted; an empty field filters nothing."""

    flags: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()

    def fits(self, entry: LedgerEntry) -> bool:
        """Whether a settlement is wanted."""
        of_flag = not self.flags or entry.flag_key in self.flags
        return of_flag and (not self.outcomes or entry.outcome in self.outcomes)


class LedgerRows:
    """The rows of a window: what was written to the ledger from `since` to before `until`."""

    def __init__(self, reader: TopicReader, kafka: KafkaSettings, window: Window, wanted: Wanted) -> None:
        self._reader = reader
        self._kafka = kafka
        self._window = window
        self._wanted = wanted
        self._topics = Topics(reader, kafka)

    @property
    def damaged(self) -> int:
        """Unreadable ledger records, which are left out."""
        return self._topics.damaged

    def __iter__(self) -> Iterator[Row]:
        """The rows.

        Raises:
            KafkaUnavailable: Kafka does not answer.
            UnknownSchema: a later release wrote the ledger.
        """
        topic = self._kafka.ledger_topic
        asked = self._window.since_ms, self._window.until_ms
        spans = self._reader.within(topic, self._reader.spans(topic), *asked)
        for number, _, record in self._topics.settlements(spans, list(spans)):
            for entry in record.entries:
                if self._wanted.fits(entry):
                    yield number, record.settled_at, *(getattr(entry, name) for name in FIELDS)
