"""How the deliveries of one partition ended according to the ledger, and what was sent before the stretch.

In: the ledger's records of the partition, in order. Out: for each delivery of the stretch how it ended, when, and in
which member's stay; the claims of deliveries before the stretch. About 20 bytes for each offset and kind.

Each delivery counts once, however often it was settled (docs/contract.md#accounting). A *stay* is a run of ledger
records of one member: what a member knows of sent metadata ends with its stay.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flagpost_consumer.commands.reconcile.settled import LaterRelease
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.books.dedupe import Dedupe
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_schemas import LedgerEntry, Settlements

_REASONS = tuple(Reason)
_REASON_BY_NAME = {reason.value: reason for reason in Reason}
_CODE = {reason: code for code, reason in enumerate(_REASONS, start=1)}
"""0: the ledger does not say."""
_REQUESTED, _RETRIED, _KEYED = 0x80, 0x40, 0x20
"""Flags in the code of a delivery: Pendo was asked; it was asked more than once; there is a dedupe key."""
_REASON = 0x1F
UNDELIVERED = frozenset({Outcome.DROPPED, Outcome.DEAD_LETTERED})
"""After these outcomes a delivery's claim is free."""
_ANSWERED = frozenset({Reason.OK, Reason.REJECTED, Reason.ATTEMPTS_EXHAUSTED})


class Recorded(NamedTuple):
    """How one delivery ended."""

    reason: Reason
    settled_at: int
    """When it was written to the ledger, epoch ms: a little after the end itself."""
    was_requested: bool = False
    """Whether Pendo was asked at least once."""
    was_retried: bool = False
    """Whether it was asked more than once."""
    was_keyed: bool = False
    """Whether it had a dedupe key: it was to be sent, unless it was a duplicate."""
    duplicate_of: int | None = None
    stay: int = 0

    @property
    def was_answered(self) -> bool:
        """Whether Pendo's answer ended it."""
        return self.reason in _ANSWERED

    @property
    def had_claim(self) -> bool:
        """Whether it had a claim: later deliveries with its key were its duplicates, until it ended undelivered."""
        return self.was_keyed and self.reason is not Reason.DEDUPE

    @property
    def was_suppressed_at_once(self) -> bool:
        """Whether its visitor was suppressed when it was read, and not only when it was to be sent."""
        return self.reason is Reason.SUPPRESSED and not self.was_keyed

    @property
    def was_sent(self) -> bool:
        """Whether Pendo was asked, according to an answer or an attempt."""
        return self.was_answered or self.was_requested


class Undelivered(NamedTuple):
    """The claim of a delivery that ended undelivered: free for later records from some moment on."""

    key: bytes
    occurred_at: int
    offset: int
    settled_at: int


@dataclass(slots=True)
class _Column:
    """One kind of delivery, by offset."""

    codes: array[int]
    settled_at: array[int]
    stays: array[int]
    duplicate_of: array[int]

    @classmethod
    def of(cls, size: int) -> _Column:
        return cls(array("B", bytes(size)), *(array(code, [0]) * size for code in "qIq"))


class PartitionLedger:
    """What the ledger says of one partition."""

    def __init__(self, span: Span, dedupe: DedupeSettings) -> None:
        """`span`: the offsets that are rehearsed. Of earlier ones only the claims are kept."""
        self._span = span
        self._columns: dict[Kind, _Column] = {}
        self._before = Restoration(span.first, dedupe)
        self._member: str | None = None
        self.undelivered: list[Undelivered] = []
        """Claims of deliveries before the stretch that ended undelivered."""
        self.reaches: list[int] = []
        """The highest offset of the stretch that was settled in each stay."""
        self.known_from = span.first
        """The lowest offset that the ledger still covers."""

    @property
    def claims(self) -> Dedupe:
        """What was sent before the stretch."""
        return self._before.dedupe

    def add(self, ledger_offset: int, settlements: Settlements) -> None:
        """Take in a record of the ledger. Raises LaterRelease."""
        if settlements.member != self._member:
            self._member = settlements.member
            self.reaches.append(-1)
        for entry in settlements.entries:
            if entry.offset < self._span.first:
                self._add_before(ledger_offset, entry, settlements.settled_at)
            elif entry.offset < self._span.end:
                self._add(entry, settlements.settled_at)

    def _add_before(self, ledger_offset: int, entry: LedgerEntry, settled_at: int) -> None:
        self.known_from = min(self.known_from, entry.offset)
        outcome, key, occurred_at = _reason(entry).outcome, entry.dedupe_key, entry.occurred_at
        if key is None or occurred_at is None:
            return
        if outcome in UNDELIVERED:
            self.undelivered.append(Undelivered(key, occurred_at, entry.offset, settled_at))
            outcome = Outcome.DELIVERED  # claimed until it ended
        settled = (entry.offset, Kind(entry.kind), outcome, key, occurred_at)
        self._before.take_claims(ledger_offset, [settled])

    def _add(self, entry: LedgerEntry, settled_at: int) -> None:
        reason, kind = _reason(entry), Kind(entry.kind)
        column = self._columns.get(kind)
        if column is None:
            column = self._columns[kind] = _Column.of(len(self._span))
        place, stay = entry.offset - self._span.first, len(self.reaches) - 1
        self.reaches[stay] = max(self.reaches[stay], entry.offset)
        before = column.codes[place]
        if before and _REASONS[(before & _REASON) - 1].outcome.rank >= reason.outcome.rank:
            return
        column.codes[place] = _CODE[reason] | _flags(entry)
        column.settled_at[place] = settled_at
        column.stays[place] = stay
        column.duplicate_of[place] = -1 if entry.duplicate_of is None else entry.duplicate_of

    def covers(self, offset: int) -> bool:
        """Whether an offset is in the stretch."""
        return self._span.first <= offset < self._span.end

    def of(self, offset: int) -> dict[Kind, Recorded]:
        """How the deliveries of a record ended, if they did."""
        return dict(self._of(offset))

    def _of(self, offset: int) -> Iterator[tuple[Kind, Recorded]]:
        place = offset - self._span.first
        for kind, column in self._columns.items():
            code = column.codes[place]
            if code:
                duplicate_of = column.duplicate_of[place]
                yield (
                    kind,
                    Recorded(
                        _REASONS[(code & _REASON) - 1],
                        column.settled_at[place],
                        bool(code & _REQUESTED),
                        bool(code & _RETRIED),
                        bool(code & _KEYED),
                        None if duplicate_of < 0 else duplicate_of,
                        column.stays[place],
                    ),
                )


def _flags(entry: LedgerEntry) -> int:
    requested = _REQUESTED if entry.attempts else 0
    retried = _RETRIED if entry.attempts > 1 else 0
    return requested | retried | (0 if entry.dedupe_key is None else _KEYED)


def _reason(entry: LedgerEntry) -> Reason:
    reason = _REASON_BY_NAME.get(entry.reason)
    if reason is None:
        raise LaterRelease(
            f"the ledger settles offset {entry.offset} for a reason that this release does not know: "
            "it was written by a later release; upgrade Flagpost"
        )
    return reason
