"""How a delivery can end: the words of the accounting.

In: nothing. Out: the kinds, outcomes and reasons that the ledger, the metrics and the dead letters share.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Kind(StrEnum):
    """What a delivery tells Pendo."""

    TRACK = "track"
    VISITOR_METADATA = "visitor_metadata"
    ACCOUNT_METADATA = "account_metadata"
    UNKNOWN = "unknown"
    """A record that could not be decoded; it is never sent."""


class Outcome(StrEnum):
    """How a delivery ended."""

    rank: int
    """Of several settlements of one delivery the one with the highest rank counts (docs/contract.md#accounting)."""

    def __new__(cls, value: str, rank: int) -> Self:
        """A member: its word, and its rank."""
        outcome = str.__new__(cls, value)
        outcome._value_ = value
        outcome.rank = rank
        return outcome

    DELIVERED = "delivered", 3
    DUPLICATE = "duplicate", 1
    DROPPED = "dropped", 0
    DEAD_LETTERED = "dead_lettered", 2


_ALL = frozenset(Kind)
_SENT = _ALL - {Kind.UNKNOWN}
_OF_VISITORS = frozenset({Kind.TRACK, Kind.VISITOR_METADATA})
_METADATA = frozenset({Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA})
_TRACK = frozenset({Kind.TRACK})
_UNDECODED = frozenset({Kind.UNKNOWN})


class Reason(StrEnum):
    """Why it ended so. Apart from `ok`, the members are in the order of precedence of docs/contract.md#outcomes."""

    outcome: Outcome
    """The one outcome to which the reason belongs."""
    kinds: frozenset[Kind]
    """The kinds of delivery that can end with it; the metrics have a series for each from the start."""

    def __new__(cls, value: str, outcome: Outcome, kinds: frozenset[Kind]) -> Self:
        """A member: its word, its outcome, and the kinds of delivery that can end so."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.outcome = outcome
        reason.kinds = kinds
        return reason

    OK = "ok", Outcome.DELIVERED, _SENT
    UNDECODABLE = "undecodable", Outcome.DEAD_LETTERED, _UNDECODED
    UNKNOWN_SCHEMA = "unknown_schema", Outcome.DEAD_LETTERED, _UNDECODED
    INVALID = "invalid", Outcome.DEAD_LETTERED, _ALL
    NO_VISITOR_ID = "no_visitor_id", Outcome.DROPPED, _OF_VISITORS
    SUPPRESSED = "suppressed", Outcome.DROPPED, _OF_VISITORS
    NOT_SELECTED = "not_selected", Outcome.DROPPED, _SENT
    NO_CONSENT = "no_consent", Outcome.DROPPED, _SENT
    FLAG_FILTERED = "flag_filtered", Outcome.DROPPED, _OF_VISITORS
    NOT_DISPATCHED = "not_dispatched", Outcome.DROPPED, _OF_VISITORS
    FIELD_MISSING = "field_missing", Outcome.DROPPED, _METADATA
    EXPIRED = "expired", Outcome.DEAD_LETTERED, _TRACK
    DEDUPE = "dedupe", Outcome.DUPLICATE, _TRACK
    SUPERSEDED = "superseded", Outcome.DUPLICATE, _METADATA
    UNCHANGED = "unchanged", Outcome.DUPLICATE, _METADATA
    REJECTED = "rejected", Outcome.DEAD_LETTERED, _SENT
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", Outcome.DEAD_LETTERED, _SENT
    VISITOR_BACKLOG = "visitor_backlog", Outcome.DEAD_LETTERED, _SENT


@dataclass(frozen=True, slots=True)
class Ending:
    """How a delivery ended and why; `detail` is for people and contains no id and no secret."""

    reason: Reason
    detail: str = ""
    duplicate_of: int | None = None
    """For the reason `dedupe`: the offset of the delivery that this one is a duplicate of."""
    by_clock: bool = False
    """Whether the local clock decided this: with another clock the event might be sent."""

    @property
    def outcome(self) -> Outcome:
        """The outcome that the reason belongs to."""
        return self.reason.outcome


DELIVERED = Ending(Reason.OK)

PENDING = "pending"
UNEXPLAINED = "unexplained"
UNKNOWN = "unknown"
"""A reason that only a later release knows."""
OFFSET_LOST = "offset_lost"
"""The group could not read the decision: it is in a gap of the ledger."""

FURTHEST_FIRST = (
    OFFSET_LOST,
    Reason.UNDECODABLE,
    Reason.UNKNOWN_SCHEMA,
    UNKNOWN,
    Reason.INVALID,
    Reason.NO_VISITOR_ID,
    Reason.SUPPRESSED,
    Reason.NOT_SELECTED,
    Reason.NO_CONSENT,
    Reason.FLAG_FILTERED,
    Reason.NOT_DISPATCHED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
    Reason.DEDUPE,
    Reason.VISITOR_BACKLOG,
    Reason.EXPIRED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.REJECTED,
    UNEXPLAINED,
    PENDING,
    Reason.OK,
)
"""How near to delivery a decision came: in the order of the checks (docs/contract.md#outcomes), then of Pendo's
answers.
"""

STANDINGS = tuple(str(each) for each in FURTHEST_FIRST)
"""The possible states of a visitor; the last one is delivered."""
