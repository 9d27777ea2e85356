"""What the ledger says about one partition of the events topic, two bytes an offset.

In: the ledger's records of the partition, in order. Out: how each delivery ended, what was sent more than once,
what was lost. Each delivery counts once, whoever settled it how often (CONTRACT section 8): delivered before
dead_lettered before duplicate before dropped.
"""

from __future__ import annotations

from array import array
from collections import Counter

from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.operator.topic_reading import Span
from flagpost_schemas import LedgerEntry, Settlements

Delivered = tuple[int, Kind]
"""A delivery of this partition: the offset of its record, and what it tells Pendo."""

_OUTCOMES = (None, Outcome.DROPPED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED, Outcome.DELIVERED)
"""By rank: the highest of several stands."""
_RANK = {outcome.value: rank for rank, outcome in enumerate(_OUTCOMES) if outcome is not None}
_SHIFT = {kind.value: 4 * place for place, kind in enumerate(Kind)}
"""Where the rank of a kind stands in an offset's 16 bits."""
_DELIVERED = _RANK[Outcome.DELIVERED.value]


class LaterRelease(Exception):  # noqa: N818 (a fact, told by an exception)
    """The ledger holds an outcome that this release does not know."""


class Settled:
    """How the deliveries of some offsets ended."""

    def __init__(self, span: Span) -> None:
        """`span`: the offsets that matter; settlements of others are left out."""
        self._span = span
        self._endings = array("H", bytes(2 * len(span)))
        self._sent_again: Counter[Delivered] = Counter()
        self._unseen: Counter[int] = Counter()

    def add(self, settlements: Settlements) -> None:
        """Take in a record of the ledger. Raises LaterRelease."""
        for entry in settlements.entries:
            if self._span.first <= entry.offset < self._span.end:
                self.add_entry(entry)

    def add_entry(self, entry: LedgerEntry) -> None:
        """Take in one settlement of an offset that matters. Raises LaterRelease."""
        rank = _RANK.get(entry.outcome)
        if rank is None:
            raise LaterRelease(
                f"the ledger settles offset {entry.offset} as something that this release does not know: "
                "it was written by a later release; upgrade Flagpost"
            )
        place, shift = entry.offset - self._span.first, _SHIFT[entry.kind]
        before = self._endings[place] >> shift & 15
        if rank == before == _DELIVERED:
            self._sent_again[entry.offset, Kind(entry.kind)] += 1
        elif rank > before:
            self._endings[place] += (rank - before) << shift
        if entry.unseen and entry.kind == Kind.TRACK:
            self._unseen[entry.offset] += entry.unseen

    def outcome(self, offset: int, kind: Kind) -> Outcome | None:
        """How a delivery ended; None: the ledger does not say."""
        return _OUTCOMES[self._endings[offset - self._span.first] >> _SHIFT[kind] & 15]

    def kinds(self, offset: int) -> list[Kind]:
        """The deliveries of a record that have ended."""
        endings = self._endings[offset - self._span.first]
        return [kind for kind in Kind if endings >> _SHIFT[kind] & 15] if endings else []

    def sent_again(self, offset: int, kind: Kind) -> int:
        """How often Pendo took a delivery after the first time."""
        return self._sent_again[offset, kind]

    def unseen(self, offset: int) -> int:
        """Track requests for a record whose answer was never seen: Pendo may have taken them."""
        return self._unseen[offset]
