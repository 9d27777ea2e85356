"""The publisher's duplicates, complaints, Kafka thread and reading of notifications, each by itself."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from flagpost_publisher import EventRefused, PublisherError
from flagpost_publisher.arguments import Options
from flagpost_publisher.complaints import Complaints
from flagpost_publisher.duplicates import ENTRIES_TOGETHER, Duplicates, claim_of
from flagpost_publisher.kafka_output import RARELY_SECONDS, REPORTS_EVERY, WAKE_SECONDS, KafkaOutput
from flagpost_publisher.listener import DecisionReader, claim_in
from flagpost_publisher.producer import LINGER_MS, producer_config
from flagpost_publisher.registry import event_headers
from flagpost_schemas import DecisionEvent, Decoder, Source, schema_of, single_object_header

A = DecisionEvent(
    event_id="1",
    occurred_at=0,
    visitor_id="v",
    flag_key="f",
    enabled=True,
    variation_key="a",
    decision_event_dispatched=True,
)
B = replace(A, variation_key="b")
OFF = replace(A, enabled=False)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def through(self, *moments: float) -> Iterator[float]:
        """Set the clock to one moment after the other."""
        for self.now in moments:
            yield self.now


def test_a_b_a_are_three_decisions_and_a_a_is_one() -> None:
    duplicates = Duplicates(60, 100)

    assert [duplicates.is_news(claim_of(each)) for each in (A, A, B, B, A, A)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (replace(A, event_id="2", occurred_at=9, rule_key="r", attributes={"x": 1}), True),
        (replace(A, visitor_id="w"), False),
        (replace(A, flag_key="g"), False),
        (replace(A, variation_key=None), False),
        (replace(A, decision_event_dispatched=False), False),
        (replace(A, rule_type="experiment"), False),
        (OFF, False),
    ],
)
def test_decisions_differ_by_what_is_sent_and_what_the_consumer_may_filter_by(
    other: DecisionEvent, same: bool
) -> None:
    duplicates = Duplicates(60, 100)
    duplicates.is_news(claim_of(A))

    assert duplicates.is_news(claim_of(other)) is not same


def test_the_variation_of_a_disabled_flag_is_off_whatever_it_was() -> None:
    duplicates = Duplicates(60, 100)
    duplicates.is_news(claim_of(OFF))

    assert not duplicates.is_news(claim_of(replace(OFF, variation_key="b")))


def test_the_ttl_begins_with_the_decision_that_was_published() -> None:
    clock = Clock()
    duplicates = Duplicates(60, 100, clock)

    assert [duplicates.is_news(claim_of(A)) for _ in clock.through(0, 30, 59.9, 60, 119, 120)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_ttl_of_zero_remembers_nothing() -> None:
    duplicates = Duplicates(0, 100)

    assert [duplicates.is_news(claim_of(A)), duplicates.is_news(claim_of(A))] == [True, True]


def test_the_least_recently_seen_is_forgotten_first() -> None:
    duplicates = Duplicates(60, 2)
    events = [replace(A, visitor_id=visitor) for visitor in "uvw"]
    for event in (events[0], events[1], events[0], events[2]):
        duplicates.is_news(claim_of(event))

    assert [duplicates.is_news(claim_of(event)) for event in (events[0], events[1])] == [False, True]


def test_a_large_memory_is_many_small_ones_that_hold_as_much() -> None:
    """A dict that grows is copied as a whole: no decide() may wait until a large one is copied."""
    clock = Clock()
    duplicates = Duplicates(60, 100_000, clock)
    events = [replace(A, visitor_id=f"v{number}") for number in range(50_000)]

    assert all(duplicates.is_news(claim_of(event)) for event in events)
    assert not any(duplicates.is_news(claim_of(event)) for event in events)
    assert max(len(cache) for cache in duplicates._caches) <= 2 * ENTRIES_TOGETHER
    assert sum(len(cache) for cache in duplicates._caches) == 50_000
    clock.now = 60.0
    assert all(duplicates.is_news(claim_of(event)) for event in events)


def test_a_full_memory_stays_within_its_limit() -> None:
    duplicates = Duplicates(60, 4 * ENTRIES_TOGETHER)
    for number in range(20 * ENTRIES_TOGETHER):
        duplicates.is_news(claim_of(replace(A, visitor_id=f"v{number}")))

    assert sum(len(cache) for cache in duplicates._caches) == 4 * ENTRIES_TOGETHER


def test_expired_decisions_are_removed_as_others_come() -> None:
    """While decisions come, ids are kept no longer than they are needed."""
    clock = Clock()
    duplicates = Duplicates(60, 100, clock)
    for number in range(50):
        duplicates.is_news(claim_of(replace(A, visitor_id=f"old-{number}")))
    clock.now = 60.0
    for number in range(50):
        duplicates.is_news(claim_of(replace(A, visitor_id=f"new-{number}")))

    assert sorted(visitor for cache in duplicates._caches for visitor, _ in cache) == sorted(
        f"new-{number}" for number in range(50)
    )


def test_a_decision_within_a_decision_is_published() -> None:
    """A signal handler may call decide() while the memory is being written."""
    depth: list[bool] = []

    def within() -> float:
        if not depth:
            depth.append(True)
            depth.append(duplicates.is_news(claim_of(B)))
            duplicates.forget(claim_of(B))
        return 0.0

    duplicates = Duplicates(60, 100, within)

    assert duplicates.is_news(claim_of(A))
    assert depth == [True, True]
    assert not duplicates.is_news(claim_of(A))


def test_a_decision_that_kafka_did_not_take_is_published_again() -> None:
    duplicates = Duplicates(60, 100)
    duplicates.is_news(claim_of(A))
    duplicates.forget(claim_of(A))

    assert duplicates.is_news(claim_of(A))


def test_forgetting_a_decision_keeps_a_later_one() -> None:
    duplicates = Duplicates(60, 100)
    duplicates.is_news(claim_of(A))
    duplicates.is_news(claim_of(B))
    duplicates.forget(claim_of(A))

    assert not duplicates.is_news(claim_of(B))


def test_complaints_of_one_kind_are_reported_once_with_their_number() -> None:
    told: list[Exception] = []
    complaints = Complaints(told.append)
    for number in range(3):
        complaints.note(EventRefused("invalid", f"invalid {number}"))
    complaints.note(EventRefused("raised", "raised"))
    complaints.tell()

    assert [(error.kind, error.count, str(error)) for error in told if isinstance(error, PublisherError)] == [
        ("invalid", 3, "invalid 2"),
        ("raised", 1, "raised"),
    ]


def test_complaints_are_reported_at_most_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("flagpost_publisher.complaints.monotonic", lambda: now[0])
    told: list[PublisherError] = []
    complaints = Complaints(told.append)  # type: ignore[arg-type]  # only PublisherErrors come

    def told_at(seconds: float) -> int:
        now[0] = seconds
        complaints.note(EventRefused("invalid", "x"))
        complaints.tell()
        return len(told)

    assert [told_at(seconds) for seconds in (1000.0, 1000.1, 1009.9, 1010.0)] == [1, 1, 1, 2]
    assert [error.count for error in told] == [1, 3]


def test_exceptions_of_on_error_are_ignored() -> None:
    told: list[Exception] = []

    def raising(error: Exception) -> None:
        told.append(error)
        raise RuntimeError

    complaints = Complaints(raising)
    complaints.note(EventRefused("invalid", "x"))
    complaints.note(EventRefused("raised", "x"))
    complaints.tell()

    assert len(told) == 2


class Producing:
    """A LastingProducer that only counts calls."""

    def __init__(self) -> None:
        self.served = self.polled = 0
        self.is_open = True

    def hand_over(self, *_: object) -> None:
        pass

    def serve(self) -> bool:
        self.served += self.is_open
        return self.is_open

    def poll(self, _: float) -> None:
        self.polled += 1


@pytest.fixture
def output() -> tuple[KafkaOutput, Producing]:
    """Return a KafkaOutput whose thread does not run (the test makes its turns), and its producer."""
    output, producing = KafkaOutput(_options(), Complaints(None), lambda *_: None), Producing()
    output._producer = cast("Any", producing)
    output._headers = event_headers(None)
    output._drain()  # nothing waits: events go directly to the producer
    return output, producing


def send(output: KafkaOutput, count: int) -> None:
    for _ in range(count):
        output.send(DecisionEvent, b"k", b"")


def test_the_thread_does_not_poll_while_callers_handle_reports(
    output: tuple[KafkaOutput, Producing],
) -> None:
    to_kafka, producing = output
    send(to_kafka, 2 * REPORTS_EVERY)
    assert to_kafka._look_after() == RARELY_SECONDS
    assert (producing.served, producing.polled) == (2, 0)


def test_the_thread_handles_reports_that_come_after_the_last_event(
    output: tuple[KafkaOutput, Producing],
) -> None:
    to_kafka, producing = output
    send(to_kafka, REPORTS_EVERY)
    to_kafka._look_after()
    to_kafka._look_after()
    send(to_kafka, REPORTS_EVERY - 1)
    assert to_kafka._look_after() == WAKE_SECONDS
    assert producing.polled == 2


def test_the_thread_rests_while_nothing_is_published(output: tuple[KafkaOutput, Producing]) -> None:
    to_kafka, _ = output
    send(to_kafka, 1)
    assert to_kafka._look_after() == WAKE_SECONDS
    assert to_kafka._look_after() == RARELY_SECONDS
    send(to_kafka, 1)
    assert to_kafka._look_after() == WAKE_SECONDS


def test_the_thread_does_not_rest_after_a_turn_in_which_a_stop_came(
    output: tuple[KafkaOutput, Producing],
) -> None:
    to_kafka, _ = output
    to_kafka._stop()
    assert to_kafka._look_after() == 0.0


def test_the_thread_polls_a_producer_that_has_ended_although_callers_handle_reports(
    output: tuple[KafkaOutput, Producing],
) -> None:
    to_kafka, producing = output
    send(to_kafka, REPORTS_EVERY)
    producing.is_open = False
    send(to_kafka, REPORTS_EVERY)
    assert to_kafka._needed.is_set()
    to_kafka._look_after()
    assert producing.polled == 1
    assert not to_kafka._needed.is_set()


INFO: dict[str, Any] = {
    "flag_key": "checkout",
    "enabled": False,
    "variables": {},
    "variation_key": "control",
    "rule_key": "test",
    "reasons": [],
    "decision_event_dispatched": True,
    "experiment_id": "100",
    "variation_id": "101",
}
SOURCE = Source(service="shop", sdk="optimizely-sdk")


def _options(**options: Any) -> Options:
    defaults: dict[str, Any] = {
        "bootstrap_servers": "x",
        "topic": "t",
        "service": None,
        "environment": None,
        "schema_registry_url": None,
        "visitor_id": None,
        "account_id": None,
        "attributes": (),
        "dedupe_ttl_seconds": 60,
        "dedupe_max_entries": 1,
        "queue_max_messages": 1,
        "consent": None,
        "properties": {},
        "on_error": None,
    }
    return Options(**{**defaults, **options})


def _reader(noted: list[PublisherError] | None = None, **options: Any) -> DecisionReader:
    return DecisionReader(_options(**options), SOURCE, ([] if noted is None else noted).append)


def _event(reader: DecisionReader, attributes: dict[str, Any], info: dict[str, Any] = INFO) -> DecisionEvent:
    body = reader.body(1, reader.visitor_id("user", attributes), "user", attributes, info, "experiment")
    event = Decoder().decode(single_object_header(schema_of(DecisionEvent).fingerprint) + body)
    assert isinstance(event, DecisionEvent)
    return event


@pytest.mark.parametrize("changes", [{}, {"enabled": True}, {"enabled": True, "variation_key": None}])
def test_a_notification_claims_what_its_event_claims(changes: dict[str, Any]) -> None:
    info = {**INFO, **changes}

    assert claim_in("user", info, "experiment") == claim_of(_event(_reader(), {}, info))


def test_the_event_has_the_facts_of_the_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagpost_publisher.listener.now_ms", lambda: 1_700_000_000_123)

    event = _event(_reader(), {"plan": "gold"})

    assert event == DecisionEvent(
        event_id="018bcfe5-687b-7000-8000-000000000001",
        occurred_at=1_700_000_000_123,
        source=SOURCE,
        visitor_id="user",
        flag_key="checkout",
        enabled=False,
        variation_key="control",
        rule_key="test",
        decision_event_dispatched=True,
        rule_type="experiment",
        experiment_id="100",
        variation_id="101",
    )
    assert (UUID(event.event_id).version, UUID(event.event_id).int >> 80) == (7, 1_700_000_000_123)


def test_an_older_sdk_passes_no_ids() -> None:
    older = {name: value for name, value in INFO.items() if not name.endswith("_id")}

    event = _event(_reader(), {}, older)

    assert (event.experiment_id, event.variation_id) == (None, None)


@pytest.mark.parametrize(
    ("source", "visitor_id"),
    [
        (None, "user"),
        ("crm_id", "c-1"),
        ("number", "42"),
        (lambda user_id, attributes: f"{user_id}/{attributes['plan']}", "user/gold"),
    ],
)
def test_ids_come_from_the_user_an_attribute_or_a_callable(source: Any, visitor_id: str) -> None:
    attributes = {"crm_id": "c-1", "number": 42, "plan": "gold"}

    event = _event(_reader(visitor_id=source, account_id=source), attributes)

    assert event.visitor_id == visitor_id
    assert event.account_id == (None if source is None else visitor_id)


@pytest.mark.parametrize("source", ["missing", lambda _user_id, _attributes: None])
def test_a_decision_without_visitor_id_is_refused_but_not_one_without_account_id(source: Any) -> None:
    assert _event(_reader(account_id=source), {}).account_id is None
    with pytest.raises(EventRefused, match="visitor_id returned None"):
        _event(_reader(visitor_id=source), {})


@pytest.mark.parametrize(
    ("consent", "carried"),
    [
        (None, None),
        ({"analytics": True}, {"analytics": True}),
        (lambda user_id, attributes: {"analytics": attributes[user_id]}, {"analytics": False}),
        (lambda _user_id, _attributes: None, None),
    ],
)
def test_consent_is_a_map_or_a_callable(consent: Any, carried: dict[str, bool] | None) -> None:
    assert _event(_reader(consent=consent), {"user": False}).consent == carried


def test_only_allowed_attributes_that_avro_can_carry_are_carried() -> None:
    noted: list[PublisherError] = []
    reader = _reader(noted, attributes=("plan", "age", "ratio", "beta", "none", "big", "odd", "missing"))
    attributes = {
        "plan": "gold",
        "age": -5,
        "ratio": 0.5,
        "beta": True,
        "none": None,
        "big": 2**63,
        "odd": object(),
        "secret": "s",
    }

    event = _event(reader, attributes)

    assert event.attributes == {"plan": "gold", "age": -5, "ratio": 0.5, "beta": True, "none": None}
    assert [str(error).split(" was ")[0] for error in noted] == [
        "an attribute of type int",
        "an attribute of type object",
    ]


@pytest.mark.parametrize(("properties", "linger_ms"), [({}, LINGER_MS), ({"linger.ms": 5}, 5)])
def test_batches_linger_as_long_as_the_properties_say(properties: dict[str, Any], linger_ms: int) -> None:
    assert producer_config(_options(properties=properties))["linger.ms"] == linger_ms


@pytest.mark.parametrize(("properties", "most"), [({}, 50_000), ({"batch.size": 1_000_000}, 1_000_000)])
def test_a_batch_is_as_large_as_the_largest_event_unless_the_properties_say_otherwise(
    properties: dict[str, Any], most: int
) -> None:
    config = producer_config(_options(properties=properties, max_event_bytes=50_000))
    assert config["batch.size"] == most
