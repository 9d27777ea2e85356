"""How a delivery can end: the words of the accounting.

In: nothing. Out: the kinds, outcomes and reasons that the ledger, the metrics and the dead letters share.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a delivery tells Pendo."""

    TRACK = "track"
    VISITOR_METADATA = "visitor_metadata"
    ACCOUNT_METADATA = "account_metadata"
    UNKNOWN = "unknown"
    """A record that could not be decoded; it is never sent."""


class Outcome(StrEnum):
    """How a delivery ended."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    DEAD_LETTERED = "dead_lettered"


class Reason(StrEnum):
    """Why it ended so."""

    OK = "ok"
    UNDECODABLE = "undecodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    INVALID = "invalid"
    NO_VISITOR_ID = "no_visitor_id"
    NO_CONSENT = "no_consent"
    FLAG_FILTERED = "flag_filtered"
    NOT_DISPATCHED = "not_dispatched"
    FIELD_MISSING = "field_missing"
    EXPIRED = "expired"
    DEDUPE = "dedupe"
    SUPERSEDED = "superseded"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    VISITOR_BACKLOG = "visitor_backlog"


OUTCOME_OF: dict[Reason, Outcome] = {
    Reason.OK: Outcome.DELIVERED,
    Reason.UNDECODABLE: Outcome.DEAD_LETTERED,
    Reason.UNKNOWN_SCHEMA: Outcome.DEAD_LETTERED,
    Reason.INVALID: Outcome.DEAD_LETTERED,
    Reason.NO_VISITOR_ID: Outcome.DROPPED,
    Reason.NO_CONSENT: Outcome.DROPPED,
    Reason.FLAG_FILTERED: Outcome.DROPPED,
    Reason.NOT_DISPATCHED: Outcome.DROPPED,
    Reason.FIELD_MISSING: Outcome.DROPPED,
    Reason.EXPIRED: Outcome.DEAD_LETTERED,
    Reason.DEDUPE: Outcome.DUPLICATE,
    Reason.SUPERSEDED: Outcome.DUPLICATE,
    Reason.UNCHANGED: Outcome.DUPLICATE,
    Reason.REJECTED: Outcome.DEAD_LETTERED,
    Reason.ATTEMPTS_EXHAUSTED: Outcome.DEAD_LETTERED,
    Reason.VISITOR_BACKLOG: Outcome.DEAD_LETTERED,
}
"""A reason belongs to one outcome."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a delivery ended and why; `detail` is for people and holds no id and no secret."""

    reason: Reason
    detail: str = ""
    duplicate_of: int | None = None
    """The offset of the delivery that this one repeats, where the reason is `dedupe`."""
    by_clock: bool = False
    """Whether it is the local clock's word: with another clock the event might be sent."""

    @property
    def outcome(self) -> Outcome:
        """The outcome that the reason belongs to."""
        return OUTCOME_OF[self.reason]


DELIVERED = Ending(Reason.OK)
