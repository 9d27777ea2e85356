"""What the ledger says about one partition of the events topic, four bytes an offset.

In: the ledger's records of the partition, in order. Out: how each delivery ended and why, what was sent more than
once. Each delivery counts once, whoever settled it how often (CONTRACT section 8): delivered before dead_lettered
before duplicate before dropped, and of the same outcome the reason that is nearest to delivery.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.operator.reconciliation.visitors import STANDINGS, UNKNOWN
from flagpost_consumer.operator.topic_reading import Span
from flagpost_schemas import LedgerEntry, Settlements

Delivered = tuple[int, Kind]
"""A delivery of this partition: the offset of its record, and what it tells Pendo."""

Endings = int
"""How the deliveries of a record ended: a byte for each kind."""


class Ended(NamedTuple):
    """How a delivery ended, and why."""

    outcome: Outcome
    reason: str
    """One of CONTRACT section 8's, or `unknown`: one that only a later release knows."""


_BY_RANK = (Outcome.DROPPED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED, Outcome.DELIVERED)
"""The highest of several stands."""
_ENDED = (
    None,
    *(
        Ended(outcome, reason)
        for outcome in _BY_RANK
        for reason in (UNKNOWN, *sorted((r for r in Reason if r.outcome is outcome), key=STANDINGS.index))
    ),
)
_CODES = {
    (each.outcome.value, str(each.reason)): code for code, each in enumerate(_ENDED) if each is not None
}
_LATER_REASON = {outcome.value: _CODES[outcome.value, UNKNOWN] for outcome in Outcome}
_DELIVERED = _CODES[Outcome.DELIVERED.value, Reason.OK.value]
_SHIFT = {kind.value: 8 * place for place, kind in enumerate(Kind)}
TRACK = Kind.TRACK.value
_KIND_OF = {kind.value: kind for kind in Kind}


class LaterRelease(Exception):  # noqa: N818 (a fact, told by an exception)
    """The ledger holds an outcome that this release does not know."""


class Settled:
    """How the deliveries of some offsets ended."""

    def __init__(self, span: Span) -> None:
        """`span`: the offsets that matter; settlements of others are left out."""
        self._span = span
        self._endings = array("I", bytes(4 * len(span)))
        self._sent_again: Counter[Delivered] = Counter()
        self._unseen: Counter[int] = Counter()
        self._remarked: set[int] = set()

    def add(self, settlements: Settlements) -> None:
        """Take in a record of the ledger. Raises LaterRelease."""
        first, end = self._span.first, self._span.end
        for entry in settlements.entries:
            if first <= entry.offset < end:
                self.add_entry(entry)

    def add_entry(self, entry: LedgerEntry) -> None:
        """Take in one settlement of an offset that matters. Raises LaterRelease."""
        offset, kind, outcome, reason = entry[:4]
        code = _CODES.get((outcome, reason)) or _LATER_REASON.get(outcome)
        if code is None:
            raise LaterRelease(
                f"the ledger settles offset {offset} as something that this release does not know: "
                "it was written by a later release; upgrade Flagpost"
            )
        place, shift = offset - self._span.first, _SHIFT[kind]
        before = self._endings[place] >> shift & 255
        if code > before:
            self._endings[place] += (code - before) << shift
        elif code == before == _DELIVERED:
            self._sent_again[offset, _KIND_OF[kind]] += 1
            self._remarked.add(offset)
        if entry.unseen and kind == TRACK:
            self._unseen[offset] += entry.unseen
            self._remarked.add(offset)

    def endings(self, offset: int) -> Endings:
        """How all deliveries of a record ended; 0: none has."""
        return self._endings[offset - self._span.first]

    @property
    def remarked(self) -> AbstractSet[int]:
        """Offsets of which there is more to say: `sent_again`, `unseen`."""
        return self._remarked

    def sent_again(self, offset: int, kind: Kind) -> int:
        """How often Pendo took a delivery after the first time."""
        return self._sent_again[offset, kind]

    def unseen(self, offset: int) -> int:
        """Track requests for a record whose answer was never seen: Pendo may have taken them."""
        return self._unseen[offset]


def ended(endings: Endings, kind: Kind) -> Ended | None:
    """How a delivery ended; None: the ledger does not say."""
    return _ENDED[endings >> _SHIFT[kind] & 255]


def kinds_of(endings: Endings) -> list[Kind]:
    """The deliveries of a record that have ended."""
    return [kind for kind in Kind if endings >> _SHIFT[kind] & 255]
