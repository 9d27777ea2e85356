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

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    DEAD_LETTERED = "dead_lettered"


class Reason(StrEnum):
    """Why it ended so."""

    outcome: Outcome
    """The one outcome that it belongs to."""

    def __new__(cls, value: str, outcome: Outcome) -> Self:
        """A member: its word, and its outcome."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.outcome = outcome
        return reason

    OK = "ok", Outcome.DELIVERED
    UNDECODABLE = "undecodable", Outcome.DEAD_LETTERED
    UNKNOWN_SCHEMA = "unknown_schema", Outcome.DEAD_LETTERED
    INVALID = "invalid", Outcome.DEAD_LETTERED
    NO_VISITOR_ID = "no_visitor_id", Outcome.DROPPED
    SUPPRESSED = "suppressed", Outcome.DROPPED
    NOT_SELECTED = "not_selected", Outcome.DROPPED
    NO_CONSENT = "no_consent", Outcome.DROPPED
    FLAG_FILTERED = "flag_filtered", Outcome.DROPPED
    NOT_DISPATCHED = "not_dispatched", Outcome.DROPPED
    FIELD_MISSING = "field_missing", Outcome.DROPPED
    EXPIRED = "expired", Outcome.DEAD_LETTERED
    DEDUPE = "dedupe", Outcome.DUPLICATE
    SUPERSEDED = "superseded", Outcome.DUPLICATE
    UNCHANGED = "unchanged", Outcome.DUPLICATE
    REJECTED = "rejected", Outcome.DEAD_LETTERED
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", Outcome.DEAD_LETTERED
    VISITOR_BACKLOG = "visitor_backlog", Outcome.DEAD_LETTERED


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
        return self.reason.outcome


DELIVERED = Ending(Reason.OK)
