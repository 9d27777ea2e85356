"""How far one partition has been read, during one assignment of it.

In: where reading starts, and each message and each end of the log that Kafka's client reports. Out: how a message
follows what was read before, what is committed besides the offset, and whether a message was read as it was
written. It does no I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

MAX_EPOCHS = 32
"""Changes of the partition's leader that are remembered; a commit below them all is made without an epoch."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition is read on, and of which topics that is known."""

    offset: int
    leader_epoch: int | None = None
    """The epoch of the record before, with which Kafka's client finds out whether the log has gone back."""
    topic_id: str | None = None
    ledger_id: str | None = None


class Follows(Enum):
    """How a message follows what was read before."""

    NEXT = "next"
    AFTER_HOLE = "after_hole"
    WENT_BACK = "went_back"
    """It lies below what was read: the topic is a new one, or its log has gone back."""


class PartitionReading:
    """One partition while it is read."""

    def __init__(self, start: Start) -> None:
        self.topic_id = start.topic_id
        self.ledger_id = start.ledger_id
        self.next_offset = start.offset
        """What is read next."""
        self.end = -1
        """Where the log's end was when reading reached it last: the marker that ends a transaction is passed
        over without a word, and would look like a record to come for as long as none comes."""
        self._live_from: int | None = None
        self.epoch = start.leader_epoch
        """The leader epoch of the record that was read last."""
        self._epochs: deque[tuple[int, int]] = deque(maxlen=MAX_EPOCHS)
        """(first offset, leader epoch) of each stretch of the log."""
        if start.leader_epoch is not None:
            self._epochs.append((-1, start.leader_epoch))

    @property
    def position(self) -> int:
        """The offset that is read next: beyond `next_offset`, what was passed over is no record."""
        return max(self.next_offset, self.end)

    def follows(self, offset: int) -> Follows:
        """How a message with this offset follows."""
        if offset == self.next_offset:
            return Follows.NEXT
        return Follows.AFTER_HOLE if offset > self.next_offset else Follows.WENT_BACK

    def epoch_begins(self, offset: int, leader_epoch: int) -> None:
        """The message with this offset is the first of another leader's."""
        self.epoch = leader_epoch
        self._epochs.append((offset, leader_epoch))

    def reached_end(self, offset: int) -> None:
        """The log ends here, for now."""
        self.end = offset
        if self._live_from is None:
            self._live_from = offset

    def paused(self) -> None:
        """Reading pauses: what is read after it may have waited in the log."""
        self._live_from = None

    def is_fresh(self, offset: int) -> bool:
        """Whether a message was read as it was written: after the end was reached, without a pause since."""
        return self._live_from is not None and offset >= self._live_from

    def epoch_before(self, offset: int) -> int | None:
        """The leader epoch of the record before an offset that is to be committed; None: not known."""
        while len(self._epochs) > 1 and self._epochs[1][0] < offset:
            self._epochs.popleft()
        return self._epochs[0][1] if self._epochs and self._epochs[0][0] < offset else None
