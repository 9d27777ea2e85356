"""What became of each record of a visitor: how its deliveries ended and why, or that they have not ended.

In: what Kafka has of the visitor, and the plan of an event under these settings. Out: a `Story` for each record. Each
delivery counts once, however often and by whom it was settled (docs/contract.md#accounting). No I/O.

The ledger has the reason but not its detail. A dead letter has the detail; for a dropped delivery, the plan under
these settings at the time of the settlement has it, if that plan ends for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flagpost_consumer.commands.explain.finding import At, Found, FoundRecord, Letter, Settled
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.planning.plan import Planned, Planner, replayed_only
from flagpost_schemas import Event, LedgerEntry

_RANK = {"unknown": -1} | {outcome.value: outcome.rank for outcome in Outcome}


class State(StrEnum):
    """The state of a delivery: its outcome, or why it has none."""

    DELIVERED = Outcome.DELIVERED
    DUPLICATE = Outcome.DUPLICATE
    DROPPED = Outcome.DROPPED
    DEAD_LETTERED = Outcome.DEAD_LETTERED
    PENDING = "pending"
    LOST = "lost"
    """Kafka no longer had the record when the group was to read it."""
    FORGOTTEN = "forgotten"
    """It ended so long ago that the ledger no longer has it."""
    UNEXPLAINED = "unexplained"
    LATER_RELEASE = "unknown"
    """A later release of Flagpost settled it in a way that this one does not know."""


SAME_DECISION = "another event within dedupe.ttl_seconds has the same flag and variation"
SAME_EVENT_ID = "another event within dedupe.ttl_seconds has the same event id"

MEANINGS: Mapping[str, str] = {
    Reason.OK: "Pendo accepted it",
    Reason.UNDECODABLE: "the record could not be decoded as an event",
    Reason.UNKNOWN_SCHEMA: "its schema was not known",
    Reason.INVALID: "it breaks a rule",
    Reason.NO_VISITOR_ID: "the event has no visitor id",
    Reason.SUPPRESSED: "the visitor was suppressed",
    Reason.NOT_SELECTED: "the select settings exclude its environment, service or account",
    Reason.NO_CONSENT: "consent was denied, or is required and was not given",
    Reason.FLAG_FILTERED: "decisions.flags_allow or decisions.flags_deny excludes the flag",
    Reason.NOT_DISPATCHED: "the decision does not belong to an experiment (decisions.experiments_only)",
    Reason.FIELD_MISSING: "Pendo does not have the field",
    Reason.EXPIRED: "it was older than delivery.max_age_seconds",
    Reason.DEDUPE: f"{SAME_DECISION}; for a TrackEvent: the same event id",
    Reason.SUPERSEDED: "a newer value of the same field was sent, or was waiting",
    Reason.UNCHANGED: "the field's last value was the same",
    Reason.REJECTED: "Pendo refused it",
    Reason.ATTEMPTS_EXHAUSTED: "delivery.max_attempts attempts failed while requests of other visitors succeeded",
    Reason.VISITOR_BACKLOG: "the visitor or account had more waiting than delivery.max_pending_per_visitor, or than "
    "its fair share of memory",
}
"""The meaning of each reason, if there is no detail."""


@dataclass(frozen=True, slots=True)
class DeliveryStory:
    """One thing to tell Pendo, and what became of it."""

    kind: Kind
    state: State
    reason: str | None = None
    detail: str = ""
    settled_at: int | None = None
    """Epoch ms."""
    entry: LedgerEntry | None = None
    sent_again: int = 0
    """How often Pendo received it after the first time."""
    letter: Letter | None = None
    planned: Planned | None = None
    """What these settings would send; None: nothing, or the record is gone."""


@dataclass(frozen=True, slots=True)
class Story:
    """One record, and its deliveries."""

    partition: int
    offset: int
    record: FoundRecord | None
    """None: Kafka no longer has it, but the ledger does."""
    deliveries: tuple[DeliveryStory, ...]

    @property
    def event(self) -> Event | None:
        """The event, if it can be read."""
        return None if self.record is None else self.record.event

    @property
    def event_id(self) -> str | None:
        """The event's id, if it is known."""
        entries = (delivery.entry for delivery in self.deliveries)
        told = next((entry.event_id for entry in entries if entry is not None), None)
        return told if self.event is None else self.event.event_id

    @property
    def occurred_at(self) -> int | None:
        """When it happened, epoch ms."""
        entries = (delivery.entry for delivery in self.deliveries)
        told = next((entry.occurred_at for entry in entries if entry is not None), None)
        return told if self.event is None else self.event.occurred_at


def tell(found: Found, planner: Planner, now_ms: int) -> list[Story]:
    """The stories of everything that was found, the oldest first."""
    teller = _Teller(found, planner, now_ms)
    return [*teller.of_gone_records(), *map(teller.of_record, found.records)]


class _Teller:
    def __init__(self, found: Found, planner: Planner, now_ms: int) -> None:
        self._found = found
        self._planner = planner
        self._now_ms = now_ms

    def of_gone_records(self) -> Iterator[Story]:
        """What the ledger says of records that Kafka no longer has."""
        held = {record.at for record in self._found.records}
        for at in sorted(self._found.settled.keys() - held):
            kinds = {Kind(settled.entry.kind): None for settled in self._found.settled[at]}
            yield Story(*at, None, tuple(self._settled(at, kind, None) for kind in kinds))

    def of_record(self, record: FoundRecord) -> Story:
        """The story of one record."""
        planned = {plan.kind: plan for plan in self._plan(record, self._now_ms)}
        ended = {Kind(settled.entry.kind) for settled in self._found.settled.get(record.at, ())}
        # With other settings, or another release, it may have had other deliveries than we would plan.
        kinds = [kind for kind in Kind if kind in ended or (kind in planned and Kind.UNKNOWN not in ended)]
        stories = [
            self._settled(record.at, kind, record)
            if kind in ended
            else DeliveryStory(kind, self._open(record), planned=planned.get(kind))
            for kind in kinds
        ]
        return Story(record.partition, record.offset, record, tuple(stories))

    def _plan(self, record: FoundRecord, now_ms: int) -> Iterable[Planned]:
        if record.event is None:
            return (Planned(Kind.UNKNOWN),)
        return replayed_only(self._planner.plan(record.event, now_ms), record.headers)

    def _settled(self, at: At, kind: Kind, record: FoundRecord | None) -> DeliveryStory:
        """How a delivery ended that the ledger settles."""
        of_kind = [settled for settled in self._found.settled[at] if settled.entry.kind == kind]
        first = max(of_kind, key=lambda settled: _RANK[settled.entry.outcome])  # of equal ones the first
        delivered = sum(settled.entry.outcome == Outcome.DELIVERED for settled in of_kind)
        letter = self._found.letters.get((*at, kind)) if first.entry.outcome == "dead_lettered" else None
        planned = None if record is None else self._planned(record, kind, first.settled_at)
        return DeliveryStory(
            kind,
            State(first.entry.outcome),
            first.entry.reason,
            _detail(first, letter, planned, record),
            first.settled_at,
            first.entry,
            max(0, delivered - 1),
            letter,
            planned,
        )

    def _planned(self, record: FoundRecord, kind: Kind, at_ms: int) -> Planned | None:
        return next((plan for plan in self._plan(record, at_ms) if plan.kind is kind), None)

    def _open(self, record: FoundRecord) -> State:
        """Why a delivery has no settlement."""
        found, number, offset = self._found, record.partition, record.offset
        if offset >= found.committed[number]:
            return State.PENDING
        if any(first <= offset < end for first, end in found.gaps.get(number, ())):
            return State.LOST
        if record.produced_at < found.ledger_from.get(number, 0):
            return State.FORGOTTEN
        return State.UNEXPLAINED


def _detail(
    settled: Settled, letter: Letter | None, planned: Planned | None, record: FoundRecord | None
) -> str:
    reason = settled.entry.reason
    if letter is not None and letter.detail:
        return letter.detail
    if planned is not None and planned.ending is not None and planned.ending.reason == reason:
        return planned.ending.detail
    if record is not None and record.unreadable and settled.entry.kind == Kind.UNKNOWN:
        return record.unreadable
    if reason == Reason.DEDUPE:  # the ledger has the flag of each decision, and of nothing else
        return SAME_EVENT_ID if settled.entry.flag_key is None else SAME_DECISION
    return MEANINGS.get(reason, "")
