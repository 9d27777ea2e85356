"""What the ledger says about one partition of the events topic, in four bytes for each offset.

In: the ledger's records of the partition, in order. Out: how each delivery ended and why, what was sent more than
once. Each delivery counts once, however often and by whom it was settled (docs/contract.md#accounting): delivered
before dead_lettered before duplicate before dropped, and for the same outcome the reason nearest to delivery.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import STANDINGS, UNKNOWN, Kind, Outcome, Reason
from flagpost_schemas import LedgerEntry

Delivered = tuple[int, Kind]
"""A delivery of this partition: the offset of its record, and its kind."""

Endings = int
"""How the deliveries of a record ended: a byte for each kind."""


class Ended(NamedTuple):
    """How a delivery ended, and why."""

    outcome: Outcome
    reason: str
    """A reason of docs/contract.md#outcomes, or `unknown`: one that only a later release knows."""


def _nearness(reason: Reason) -> int:
    """How near to delivery a reason is; one without a rank, which a test would report, is furthest."""
    return STANDINGS.index(reason) if reason in STANDINGS else -1


_ENDED = (
    None,
    *(
        Ended(outcome, reason)
        for outcome in sorted(Outcome, key=lambda each: each.rank)
        for reason in (UNKNOWN, *sorted((r for r in Reason if r.outcome is outcome), key=_nearness))
    ),
)
_CODES = {
    (each.outcome.value, str(each.reason)): code for code, each in enumerate(_ENDED) if each is not None
}
_DELIVERED = _CODES[Outcome.DELIVERED.value, Reason.OK.value]
_SHIFT = {kind.value: 8 * place for place, kind in enumerate(Kind)}
TRACK = Kind.TRACK.value
_KIND_OF = {kind.value: kind for kind in Kind}


class LaterRelease(Exception):  # noqa: N818 (a fact, told by an exception)
    """The ledger contains an outcome that this release does not know."""


class Settled:
    """How the deliveries of some offsets ended."""

    def __init__(self, span: Span) -> None:
        """`span`: the offsets that matter; settlements of others are ignored."""
        self._span = span
        self._endings = array("I", bytes(4 * len(span)))
        self._sent_again: Counter[Delivered] = Counter()
        self._unseen: Counter[int] = Counter()
        self._remarked: set[int] = set()

    def add(self, entries: Iterable[LedgerEntry]) -> None:
        """Take in settlements of the partition. Raises LaterRelease."""
        first, end, endings = self._span.first, self._span.end, self._endings
        for entry in entries:
            offset, kind, outcome, reason = entry[:4]
            if not first <= offset < end:
                continue
            code = _CODES.get((outcome, reason)) or _code_of_later(entry)
            place, shift = offset - first, _SHIFT[kind]
            before = endings[place] >> shift & 255
            if code > before:
                endings[place] += (code - before) << shift
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
        """Offsets with more information: `sent_again`, `unseen`."""
        return self._remarked

    def sent_again(self, offset: int, kind: Kind) -> int:
        """How often Pendo received a delivery after the first time."""
        return self._sent_again[offset, kind]

    def unseen(self, offset: int) -> int:
        """Track requests for a record whose answer was never seen: Pendo may have received them."""
        return self._unseen[offset]


def _code_of_later(entry: LedgerEntry) -> int:
    """Of an ending whose reason only a later release knows."""
    code = _CODES.get((entry.outcome, UNKNOWN))
    if code is None:
        raise LaterRelease(
            f"the ledger settles offset {entry.offset} as something that this release does not know: "
            "it was written by a later release; upgrade Flagpost"
        )
    return code


def ended(endings: Endings, kind: Kind) -> Ended | None:
    """How a delivery ended; None: the ledger does not say."""
    return _ENDED[endings >> _SHIFT[kind] & 255]


def kinds_of(endings: Endings) -> list[Kind]:
    """The deliveries of a record that have ended."""
    return [kind for kind in Kind if endings >> _SHIFT[kind] & 255]
