"""What the Kafka thread tells the event loop: the calls, their order, and what they mean.

In: nothing. Out: the interface that the service implements, and the facts about lag that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.records import Gap


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one partition is behind."""

    end: int
    """The offset after the last record in the log."""
    read: int
    """The offset after the last record that was read."""
    position: int
    """The offset that is read next. Offsets between `read` and this one hold no records."""


class IntakeHandler(Protocol):
    """What the event loop does with what the Kafka thread brings. All methods run on the loop, in order."""

    def on_assigned(self, partitions: list[int], partition_count: int, assignment: int) -> None:
        """The group has assigned partitions; each is read once it is released for this `assignment`."""

    async def on_revoked(self, partitions: list[int]) -> dict[int, Position]:
        """Hand partitions over; returns the positions to commit for them."""

    def on_lost(self, partitions: list[int]) -> None:
        """Partitions already belong to another member."""

    def on_messages(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Messages were read; call `done` once they are taken in."""

    def on_partition_count(self, count: int) -> None:
        """The topic has this many partitions."""

    def on_lag(self, lag: Mapping[int, Lag]) -> None:
        """How far each partition is behind."""

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        """These partitions hold a new log: what was known of their offsets is no longer valid.

        Each is read again once it is released for this `assignment`. `went_back`: for partitions whose log went
        back, the offset it went back to, and the ids of the topics they were read from until then.
        """

    def on_epoch(self, partition: int, offset: int, epoch: int) -> None:
        """The records of a partition from an offset on were written under this leader; its messages come next."""

    def on_gap(self, partition: int, gap: Gap) -> None:
        """Kafka no longer has offsets of a partition that were to be read next."""

    def on_commit_ended(self, began_at: float | None) -> None:
        """A commit has ended. `began_at`: when it began, which proves our membership then; None: it failed."""
