"""What a pending delivery waits for, and until when, as far as it can be known from outside.

In: the stories, the consumers' states, who has the partition, the settings, the time. Out: a `Wait` for each pending
delivery. How often it has been tried is known only to the process that holds it. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flagpost_consumer.commands.explain.stories import DeliveryStory, State, Story
from flagpost_consumer.commands.sources.consumer_state import ConsumerState, PartitionState
from flagpost_consumer.core.backoff import CAP_SECONDS
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.policy import DeliverySettings


class Cause(StrEnum):
    """What is waited for."""

    NO_CONSUMER = "no_consumer"
    NOT_READ = "not_read"
    STALLED = "stalled"
    INTAKE_PAUSED = "intake_paused"
    PENDO = "pendo"
    PACE = "pace"
    BATCH = "batch"
    TURN = "turn"
    """It may start now; or it is in flight, or failed and will be retried."""
    UNKNOWN = "unknown"
    """Unknown."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What one delivery waits for."""

    cause: Cause
    detail: str
    not_before: int | None = None
    """Epoch ms."""
    expires_at: int | None = None
    """When it is given up, epoch ms; None: never."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known besides the topics."""

    now_ms: int
    delivery: DeliverySettings
    linger_seconds: float
    consumers: Sequence[ConsumerState] = ()
    """The processes that answered."""
    held: Mapping[int, bool] | None = None
    """By partition, whether a member of the group has it, according to Kafka; None: Kafka does not tell."""


Delivery = tuple[int, int, Kind]
"""Partition, offset, kind."""


def waits(stories: Iterable[Story], around: Surroundings) -> dict[Delivery, Wait]:
    """What each pending delivery waits for."""
    found: dict[Delivery, Wait] = {}
    ordered = sorted(stories, key=lambda story: (story.partition, story.offset))
    turn = _next_turn(ordered, around)
    for story, delivery in _pending(ordered):
        own_turn = None
        if delivery.kind is Kind.TRACK:
            own_turn = turn
            turn += around.delivery.visitor_interval_seconds * 1000
        found[story.partition, story.offset, delivery.kind] = _wait(story, delivery, own_turn, around)
    return found


def _pending(stories: Iterable[Story]) -> Iterator[tuple[Story, DeliveryStory]]:
    for story in stories:
        for delivery in story.deliveries:
            if delivery.state is State.PENDING:
                yield story, delivery


def _next_turn(stories: Iterable[Story], around: Surroundings) -> float:
    """When the first remaining track request may start at the earliest, epoch ms; the others follow one by one."""
    tried = [
        delivery.settled_at
        for story in stories
        for delivery in story.deliveries
        if delivery.kind is Kind.TRACK and delivery.settled_at and delivery.entry and delivery.entry.attempts
    ]
    return max(around.now_ms, max(tried, default=0) + around.delivery.visitor_interval_seconds * 1000)


def _wait(story: Story, delivery: DeliveryStory, turn: float | None, around: Surroundings) -> Wait:
    occurred_at = story.occurred_at
    expires_at = None
    if delivery.kind is Kind.TRACK and occurred_at is not None:
        expires_at = occurred_at + int(around.delivery.max_age_seconds * 1000)
    holder = next((state for state in around.consumers if story.partition in state.partitions), None)
    cause, detail = _unread(story, holder, around) or _unsent(delivery, holder, turn, around)
    not_before = int(turn) if turn is not None and turn > around.now_ms else None
    return Wait(cause, detail, not_before, expires_at)


def _unread(story: Story, holder: ConsumerState | None, around: Surroundings) -> tuple[Cause, str] | None:
    """Why the record has not been read; None: it has, or it is unknown."""
    number = story.partition
    if holder is None:
        if around.held is None or around.held.get(number, False):
            return None
        return Cause.NO_CONSUMER, f"no consumer of the group has partition {number}"
    partition = holder.partitions[number]
    if partition.position is None or story.offset < partition.position:
        return None
    cause, why = _not_reading(holder, partition, story.offset - partition.position)
    return cause, f"not read yet: {why}"


def _not_reading(holder: ConsumerState, partition: PartitionState, before: int) -> tuple[Cause, str]:
    """Why a consumer has not reached a record with `before` records before it."""
    if partition.stalled is not None:
        return Cause.STALLED, f"the partition is stalled ({partition.stalled})"
    if not partition.is_restored:
        return Cause.NOT_READ, "the consumer is still reading the partition's ledger"
    if holder.is_paused:
        return (
            Cause.INTAKE_PAUSED,
            f"intake is paused: Pendo's state is {holder.endpoints[EndpointName.TRACK].state}",
        )
    return Cause.NOT_READ, f"{before:,} records come before it"


def _unsent(
    delivery: DeliveryStory, holder: ConsumerState | None, turn: float | None, around: Surroundings
) -> tuple[Cause, str]:
    """Why it has not been sent, or not been settled."""
    endpoint = EndpointName.TRACK if delivery.kind is Kind.TRACK else EndpointName.METADATA
    if holder is not None and (state := holder.endpoints[endpoint].state) != EndpointState.OK:
        return Cause.PENDO, f"Pendo's {endpoint.value} endpoint is {state}"
    if turn is not None and turn > around.now_ms:
        seconds = around.delivery.visitor_interval_seconds
        return Cause.PACE, f"pace: at most one track request per visitor every {seconds:g} s, in order"
    if holder is None:
        return (
            Cause.UNKNOWN,
            "it is not known whether it was read: no consumer's admin address is reachable (give --admin URL)",
        )
    if endpoint is EndpointName.METADATA:
        linger = f"within metadata.linger_seconds ({around.linger_seconds:g} s)"
        return Cause.BATCH, f"read; it will be sent with the next batch, {linger}, or is being retried"
    return (
        Cause.TURN,
        f"read; it is next to be sent, or it failed and is retried at least every {CAP_SECONDS:g} s",
    )
