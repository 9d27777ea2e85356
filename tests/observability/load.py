"""A load that gives every panel data: what services publish, and what goes wrong at Pendo.

In: the number of a round and the time. Out: events of that round; records that our publishers would not write; the
faults of the stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_BEFORE_RECORDING,
    HANG,
    Fault,
    Faults,
    Kind,
    MetadataField,
    StandInConfig,
)
from flagpost_schemas import (
    AccountMetadata,
    Context,
    DecisionEvent,
    Event,
    RuleType,
    Scalar,
    TrackEvent,
    VisitorMetadata,
    encode_single_object,
    new_event_id,
)

DAY_MS = 86_400_000
FLAGS = ("checkout", "banner")
"""The flags in metrics.flags; Pendo has a field for the first only."""

UNLUCKY = tuple(f"unlucky-{number}" for number in range(6))
"""Visitors whose requests often fail before one succeeds."""

SETTINGS: dict[str, object] = {
    "metrics.flags": FLAGS,
    "metrics.splits": {"checkout": {"control": 50, "treatment": 50}},
    "decisions.flags_deny": ["internal*"],
    "delivery.visitor_interval_seconds": 0.2,
    "delivery.max_attempts": 2,
    "delivery.max_pending": 300,
    "delivery.max_pending_per_visitor": 60,
    "dedupe.max_entries": 40,
    "pendo.request_timeout_seconds": 1,
    "pendo.track_requests_per_minute": 30_000,
    "pendo.metadata_requests_per_minute": 600,
    "kafka.session_timeout_seconds": 4,
}
PENDO = StandInConfig(
    visitor_interval_seconds=0.0,
    latency_seconds=0.02,
    fields=(
        MetadataField("optimizely_checkout", "[Optimizely] checkout"),
        MetadataField("plan", "plan"),
        MetadataField("seats", "seats", Kind.ACCOUNT),
    ),
)


def misbehave(faults: Faults) -> None:
    """Make Pendo fail for some visitors, and for 3 % of all requests, from now on."""
    again = [Fault(status=503), Fault(), Fault(status=429, retry_after_seconds=0.2), Fault()] * 200
    for visitor in UNLUCKY:
        faults.visitor(visitor, *again)
    faults.visitor("rejected", afterwards=400)
    faults.visitor("poison", afterwards=500)
    faults.visitor("hangs", HANG, HANG)
    faults.visitor("cut-off", *[CLOSE_BEFORE_RECORDING] * 3)
    faults.mix(seed=6, chances=[(0.03, 500)])


def throttle(faults: Faults) -> None:
    """Make Pendo throttle so many visitors at once that one of two consumers has at least three of them."""
    for visitor in UNLUCKY:
        faults.visitor(visitor, *[Fault(status=429, retry_after_seconds=2)] * 3)


@dataclass(frozen=True, slots=True)
class Raw:
    """A record that was not written by our publisher."""

    key: bytes
    value: bytes
    partition: int


def odd_records(partitions: int, now_ms: int) -> list[Raw]:
    """Records with undecodable bytes, with an unknown schema, and of a visitor on a partition that is not its own."""
    visitor = b"elsewhere"
    misplaced = decision("elsewhere", "checkout", now_ms)
    return [
        Raw(b"someone", b"no Avro", 0),
        Raw(b"someone", b"\xc3\x01" + bytes(8), 0),
        Raw(visitor, encode_single_object(misplaced), (partition_of(visitor, partitions) + 1) % partitions),
    ]


def decision(visitor_id: str, flag_key: str, at_ms: int, variation: str = "treatment") -> DecisionEvent:
    """One decision."""
    return DecisionEvent(
        event_id=new_event_id(),
        occurred_at=at_ms,
        visitor_id=visitor_id,
        account_id="acme",
        flag_key=flag_key,
        enabled=True,
        variation_key=variation,
        rule_key="rule",
        decision_event_dispatched=True,
        rule_type=RuleType.EXPERIMENT,
    )


def round_of(number: int, now_ms: int) -> Iterator[Event]:
    """The events of one round; each round has all kinds of them."""
    yield from _decisions(number, now_ms)
    yield from _clicks(number, now_ms)
    yield from _metadata(number, now_ms)
    yield from _undeliverable(now_ms)


def crowd_of_one(length: int, now_ms: int) -> Iterator[Event]:
    """Events of a visitor who sends much more than one visitor may: a catch-all id."""
    return (_click("robot", now_ms, {"place": place}) for place in range(length))


def _decisions(number: int, now_ms: int) -> Iterator[Event]:
    for person in range(12):
        variation = "treatment" if person % 2 else "control"
        for flag in FLAGS:
            yield decision(f"visitor-{number % 5}-{person}", flag, now_ms, variation)
    yield decision("visitor-a", "internal-flag", now_ms)
    yield decision("visitor-late", "checkout", now_ms - 3_600_000 + number)
    for visitor in ("rejected", "poison", "hangs", "cut-off", *UNLUCKY):
        yield decision(visitor, f"flag-{number}", now_ms)


def _clicks(number: int, now_ms: int) -> Iterator[Event]:
    bad: dict[str, Scalar] = {"2nd plan": 1, "error": "none", "x" * 40: "y" * 600}
    yield _click(f"visitor-{number}", now_ms, bad)
    yield TrackEvent(event_id=new_event_id(), occurred_at=now_ms, anonymous_id="a", event="Seen")
    yield TrackEvent(
        event_id=new_event_id(),
        occurred_at=now_ms,
        visitor_id="visitor-b",
        event="Seen",
        consent={"analytics": False},
        context=Context(url="https://shop.example"),
    )


def _metadata(number: int, now_ms: int) -> Iterator[Event]:
    for plan in ("gold", "gold", f"gold-{number}"):
        yield VisitorMetadata(
            event_id=new_event_id(), occurred_at=now_ms, visitor_id="visitor-c", values={"plan": plan}
        )
    yield AccountMetadata(
        event_id=new_event_id(), occurred_at=now_ms, account_id="acme", values={"seats": number}
    )


def _undeliverable(now_ms: int) -> Iterator[Event]:
    yield _click("visitor-d", now_ms - 8 * DAY_MS)
    yield _click("visitor-d", now_ms + DAY_MS)


def _click(visitor_id: str, at_ms: int, properties: dict[str, Scalar] | None = None) -> TrackEvent:
    return TrackEvent(
        event_id=new_event_id(),
        occurred_at=at_ms,
        visitor_id=visitor_id,
        event="Clicked",
        properties=properties or {},
    )
