"""Steps by which a test runs the engine by hand: the time, the attempts, what Kafka acknowledges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from engine_world import OK, START_MS, acknowledge, ready, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DecisionsSettings, MetadataSettings, Policy
from flagpost_consumer.core.records import DecodeFailure, Record, Undecoded
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import DecisionEvent, MetadataValue, VisitorMetadata, encode_single_object

TRACKS_ONLY = Policy(decisions=DecisionsSettings(visitor_metadata=False))
NO_LINGER = Policy(metadata=MetadataSettings(linger_seconds=0.0))


def instant(seconds: float) -> Instant:
    """A moment on both clocks."""
    return Instant(seconds, START_MS + int(seconds * 1000))


def engine_with(policy: Policy, partitions: Iterable[int] = (0,), count: int = 8) -> Engine:
    """An engine that has had these of `count` partitions, restored, since second 0."""
    engine = Engine(policy, Random(1).random)
    ready(engine, partitions, count, instant(0.0), policy)
    return engine


def metadata(visitor: str, at: int = 0, **values: MetadataValue) -> VisitorMetadata:
    """Metadata of a visitor that occurred `at` ms after the start."""
    return VisitorMetadata(
        event_id=f"{visitor}-{at}", occurred_at=START_MS + at, visitor_id=visitor, values=values
    )


def damaged(offset: int, partition: int = 0) -> Record:
    """A record that cannot be decoded: it is settled without a request."""
    return record(DecodeFailure(Reason.UNDECODABLE, "cut short"), offset, partition, key="damaged")


class Reader:
    """Reads messages, each of which is a decoded record; notes which were read."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def decode(self, message: Any) -> Record:
        assert isinstance(message, Record)
        self.decoded.append(message.offset)
        return message

    def timestamp_ms(self, message: Record) -> int:
        return message.timestamp_ms

    def is_fresh(self, message: Record) -> bool:
        return message.fresh


def undecoded(event: DecisionEvent, offset: int, reader: Reader) -> Undecoded:
    """A decision as a record of partition 0 that is not decoded yet."""
    value = encode_single_object(event)
    return Undecoded(0, offset, event.visitor_id.encode(), value, record(event, offset), reader)


def attempts_at(engine: Engine, seconds: float) -> list[Attempt]:
    """The attempts that start at a time; Kafka acknowledges settlements at once."""
    attempts: list[Attempt] = []
    for _ in range(2):
        actions = engine.poll(instant(seconds))
        acknowledge(engine, actions.settlements)
        attempts += actions.attempts
    return attempts


def answer_all(engine: Engine, seconds: float, answer: Answer) -> int:
    """Answer all requests that start at a time in the same way; returns how many there were."""
    attempts = attempts_at(engine, seconds)
    for attempt in attempts:
        engine.answered(attempt, answer, instant(seconds))
    return len(attempts)


def settle_all(engine: Engine, seconds: float) -> dict[int, Settlement]:
    """Let Pendo accept everything from a time on; returns the settlement of each offset."""
    settled: dict[int, Settlement] = {}
    for _ in range(100):
        actions = engine.poll(instant(seconds))
        settled.update({each.delivery.record.offset: each for each in actions.settlements})
        acknowledge(engine, actions.settlements)
        for attempt in actions.attempts:
            engine.answered(attempt, OK, instant(seconds))
        seconds += 1.0
    assert engine.pending_records == 0
    return settled


def reasons(settled: dict[int, Settlement]) -> dict[int, Reason]:
    """The reason of each offset's settlement."""
    return {offset: settlement.ending.reason for offset, settlement in settled.items()}


def visitors(attempts: Iterable[Attempt]) -> list[str]:
    """The visitors whose track events are sent."""
    return [attempt.lane.visitor_id for attempt in attempts if isinstance(attempt, TrackAttempt)]


def decoded_into(taken: list[Record]) -> Callable[[Iterable[Record | Undecoded]], None]:
    """A function that appends records, all of which are decoded, to a list."""

    def take(records: Iterable[Record | Undecoded]) -> None:
        for each in records:
            assert isinstance(each, Record)
            taken.append(each)

    return take
