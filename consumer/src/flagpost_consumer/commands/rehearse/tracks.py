"""Track deliveries: which would be a duplicate, and which would be sent to Pendo.

In: planned track deliveries in the order of their offsets, and how each ended according to the ledger. Out: how each
would end. What is sent to Pendo ends there like in the ledger; for what was not sent then, it is assumed that Pendo
accepts it.

A delivery that ends undelivered frees its claim when it ends, and the ledger does not say what had been read by then.
That only matters for the next record with the same key, and how that one ended shows it.
"""

from __future__ import annotations

from typing import NamedTuple

from flagpost_consumer.commands.rehearse.recorded import UNDELIVERED, PartitionLedger, Recorded, Undelivered
from flagpost_consumer.core.books.dedupe import Dedupe
from flagpost_consumer.core.outcomes import Kind, Reason

MAX_UNDELIVERED = 100_000
"""Claims that wait to be freed; the oldest are freed first."""

_PENDOS = frozenset(
    {Reason.OK, Reason.REJECTED, Reason.ATTEMPTS_EXHAUSTED, Reason.VISITOR_BACKLOG, Reason.SUPPRESSED}
)
"""How what would be sent may end. `visitor_backlog` depends on memory and time, `suppressed` on requests in between:
these cannot be known here.
"""


class DueTrack(NamedTuple):
    """One track delivery that is to be sent, unless it is a duplicate."""

    key: bytes
    occurred_at: int
    offset: int
    came_ms: int
    """When its record was produced."""
    deadline_ms: float
    """The last moment at which it may be sent."""
    recorded: Recorded | None


class Tracks:
    """The track deliveries of one partition."""

    def __init__(self, ledger: PartitionLedger) -> None:
        self._ledger = ledger
        self._claims: Dedupe = ledger.claims
        self._undelivered: dict[bytes, list[Undelivered]] = {}
        self._known_from = ledger.known_from
        for each in ledger.undelivered:
            self._keep(each)

    def take(self, due: DueTrack) -> Reason | None:
        """How a delivery would end; None: unknown, because the one that it duplicates is no longer known."""
        key, recorded = due.key, due.recorded
        for each in self._undelivered.pop(key, ()):
            if _is_claimed_still(each, due):
                self._keep(each)
            else:
                self._claims.release(key, each.occurred_at, each.offset)
        if self._claims.claim(key, due.occurred_at, due.offset) is not None:
            return Reason.EXPIRED if _was_too_old_at_once(due) else Reason.DEDUPE
        if recorded is None:
            return Reason.OK
        if recorded.reason is Reason.DEDUPE and self._is_unknown(recorded, due.offset):
            return None
        reason = _in_the_end(recorded, due.deadline_ms)
        if reason.outcome in UNDELIVERED:
            self._keep(Undelivered(key, due.occurred_at, due.offset, recorded.settled_at))
        return reason

    def advance(self, occurred_at: int) -> None:
        """Note the time of a record that claims nothing."""
        self._claims.advance(occurred_at)

    def _is_unknown(self, recorded: Recorded, offset: int) -> bool:
        """Whether nothing is known of the delivery that was duplicated: it is older than everything that is known, or
        it came later (in a hand-over), or it was read again after its visitor had been suppressed.
        """
        of = recorded.duplicate_of
        if of is None:
            return False
        repeated = self._ledger.of(of).get(Kind.TRACK) if self._ledger.covers(of) else None
        return not self._known_from <= of < offset or (
            repeated is not None and repeated.was_suppressed_at_once
        )

    def _keep(self, each: Undelivered) -> None:
        self._undelivered.setdefault(each.key, []).append(each)
        if len(self._undelivered) > MAX_UNDELIVERED:
            for oldest in self._undelivered.pop(next(iter(self._undelivered))):
                self._claims.release(oldest.key, oldest.occurred_at, oldest.offset)


def _was_too_old_at_once(due: DueTrack) -> bool:
    """Whether a delivery expired when its record was read; before a hand-over it may have been read in time."""
    known = due.recorded
    if known is None or known.reason is not Reason.EXPIRED or known.had_claim:
        return False
    return known.settled_at > due.deadline_ms


def _in_the_end(recorded: Recorded, deadline_ms: float) -> Reason:
    """How a delivery that is not a duplicate would end."""
    if recorded.reason is Reason.EXPIRED and recorded.settled_at > deadline_ms:
        return Reason.EXPIRED
    return recorded.reason if recorded.reason in _PENDOS else Reason.OK


def _is_claimed_still(each: Undelivered, due: DueTrack) -> bool:
    """Whether a record with the same key was read before another one ended undelivered."""
    recorded = due.recorded
    if recorded is not None and recorded.duplicate_of == each.offset:
        return True
    if recorded is not None and recorded.had_claim:
        return False
    return due.came_ms <= each.settled_at
