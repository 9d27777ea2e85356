"""How far one partition has been read, during one assignment.

In: where reading starts, and each message and each end of the log that Kafka's client reports. Out: how a message
follows what was read before, what to commit besides the offset, and whether a message was read as it was written. It
does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flagpost_consumer.core.books.leader_epochs import LeaderEpochs, is_of_another_log


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read on in a partition, and the ids of the topics for which that is known."""

    offset: int
    leader_epoch: int | None = None
    """The epoch of the record before, or of this one: by it Kafka's client finds out whether the log went back."""
    topic_id: str | None = None
    ledger_id: str | None = None
    settled_epochs: Mapping[int, int] = field(default_factory=dict)
    """The last offset that the ledger settles of each leader epoch."""


class Follows(Enum):
    """How a message follows what was read before."""

    NEXT = "next"
    AFTER_HOLE = "after_hole"
    WENT_BACK = "went_back"
    """Its offset is lower than what was read: the topic is a new one, or its log has gone back."""


class PartitionReading:
    """One partition while it is read."""

    def __init__(self, start: Start) -> None:
        self.topic_id = start.topic_id
        self.ledger_id = start.ledger_id
        self.next_offset = start.offset
        """The offset of the next record."""
        self.end = -1
        """Where the log's end was when reading last reached it. The marker that ends a transaction is skipped
        silently, and would otherwise look like an unread record until the next record comes.
        """
        self._live_from: int | None = None
        self._settled_epochs = start.settled_epochs
        self.epoch: int | None = None
        """The leader epoch of the record that was read last; None: none was."""
        self._epochs = LeaderEpochs()
        if start.leader_epoch is not None:
            self._epochs.begins(-1, start.leader_epoch)

    @property
    def position(self) -> int:
        """The offset that is read next. Offsets between `next_offset` and this one hold no records."""
        return max(self.next_offset, self.end)

    def follows(self, offset: int) -> Follows:
        """How a message with this offset follows."""
        if offset == self.next_offset:
            return Follows.NEXT
        return Follows.AFTER_HOLE if offset > self.next_offset else Follows.WENT_BACK

    def is_of_another_log(self, offset: int, leader_epoch: int) -> bool:
        """Whether a message shows that what the ledger settles here is gone, and others have its offsets now."""
        return is_of_another_log(offset, leader_epoch, self._settled_epochs)

    def epoch_begins(self, offset: int, leader_epoch: int) -> None:
        """The message with this offset is the first of another leader."""
        self.epoch = leader_epoch
        self._epochs.begins(offset, leader_epoch)

    def reached_end(self, offset: int) -> None:
        """The log ends here, for now."""
        self.end = offset
        if self._live_from is None:
            self._live_from = offset

    def paused(self) -> None:
        """Reading pauses: what is read later may have waited in the log."""
        self._live_from = None

    def is_fresh(self, offset: int) -> bool:
        """Whether a message was read as it was written: after the end was reached, without a pause since."""
        return self._live_from is not None and offset >= self._live_from

    def epoch_before(self, offset: int) -> int | None:
        """The leader epoch of the record before an offset that is to be committed; None: unknown."""
        return self._epochs.before(offset)
