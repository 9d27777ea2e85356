"""Which deliveries a replay of a dead letter would make, according to the dead letter alone.

In: dead letters with their values, the policy, the time. Out: a `Candidate` for each: the deliveries that the
consumer would plan, with the keys by which duplicates are recognised; or why it cannot be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flagpost_consumer.commands.dead_letters.records import DeadLetter
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.planning.mapping import VISITOR
from flagpost_consumer.core.planning.plan import Planned, Planner
from flagpost_consumer.core.planning.suppressions import Suppressions
from flagpost_consumer.core.policy import Policy
from flagpost_schemas import DecodeError, Event


class Skip(Enum):
    """Why a dead letter is not replayed; the value is for people."""

    TRUNCATED = "the value was too large for the dead-letter topic and is lost"
    UNREADABLE = "the value cannot be read here, so it may be a duplicate; use the consumer's settings"
    NOT_PLANNED = "these settings plan no delivery of its kind"
    EXPIRED = "the event is older than delivery.max_age_seconds, and Pendo would ignore it"
    DELIVERED = "a duplicate of it was delivered"
    REPEATED = "it is a duplicate of one that is replayed now; try again when that one is settled"
    TOO_LARGE = "with the headers of a replay it is too large for the events topic"
    SUPPRESSED = "its visitor is suppressed (flagpost suppress)"
    GONE = "Kafka has deleted it since"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a track delivery claims: a key, at a time."""

    key: bytes
    occurred_at: int


@dataclass(frozen=True, slots=True)
class Part:
    """One delivery that a replay would make."""

    kind: str
    claim: Claim | None = None
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dead letter that matches the filter."""

    letter: DeadLetter
    parts: tuple[Part, ...] = ()
    skip: Skip | None = None
    """Why it cannot be replayed, whatever the ledger says."""


class Assessor:
    """Assesses dead letters with one policy, at one time."""

    def __init__(self, policy: Policy, values: Values, now_ms: int, suppressions: Suppressions) -> None:
        self._planner = Planner(policy)
        self._suppressions = suppressions
        self._values = values
        self._now_ms = now_ms

    def assess(self, letter: DeadLetter, value: bytes | None) -> Candidate:
        """What a replay of this dead letter would make.

        Raises:
            RegistryNotAnswering: the schema registry is needed, but does not answer.
        """
        if letter.truncated:
            return Candidate(letter, skip=Skip.TRUNCATED)
        try:
            event = self._values.decode(value)
        except DecodeError:
            return self._unreadable(letter)
        plans = [
            planned
            for planned in self._planner.plan(event, self._now_ms)
            if letter.kind in (Kind.UNKNOWN, planned.kind)
        ]
        if any(map(self._is_suppressed, plans)):
            return Candidate(letter, skip=Skip.SUPPRESSED)
        parts = tuple(self._part(event, planned) for planned in plans)
        return Candidate(letter, parts, None if parts else Skip.NOT_PLANNED)

    def _part(self, event: Event, planned: Planned) -> Part:
        key = planned.dedupe_key
        return Part(
            planned.kind,
            None if key is None else Claim(key, event.occurred_at),
            expired=planned.kind is Kind.TRACK and self._now_ms > self._planner.deadline_ms(event),
        )

    def _is_suppressed(self, planned: Planned) -> bool:
        """Whether a delivery is about a suppressed visitor, however it would end."""
        if planned.track is not None:
            return self._suppressions.hold(planned.track.visitor_id)
        about = planned.metadata
        return about is not None and about.target == VISITOR and self._suppressions.hold(about.target_id)

    def _unreadable(self, letter: DeadLetter) -> Candidate:
        """The consumer could not read it either: then it may judge it again. Otherwise a replay would make a
        duplicate.
        """
        if letter.kind != Kind.UNKNOWN:
            return Candidate(letter, skip=Skip.UNREADABLE)
        if self._suppressions.hold((letter.key or b"").decode(errors="replace")):
            return Candidate(letter, skip=Skip.SUPPRESSED)
        return Candidate(letter, (Part(Kind.UNKNOWN),))
