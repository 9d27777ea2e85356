"""Impressions are counted as the real SDK sends them, and their reports are written to Kafka."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagpost_publisher import Publisher
from flagpost_publisher.arguments import Options
from flagpost_publisher.attachment import Attachment
from flagpost_publisher.complaints import Complaints
from flagpost_publisher.impressions import MAX_REPORT_BYTES, MAX_ROWS, MAX_WAITING, Impressions
from flagpost_publisher.reporting import INTERVAL_SECONDS, PATIENCE_SECONDS, Reporting
from flagpost_publisher.rule_types import RuleTypes
from flagpost_schemas import DecisionEvent, Source
from flagpost_schemas.exposures import Exposure
from optimizely_fixtures import EVERYONE, TARGETED, holdout, optimizely_client, user_of

SOURCE = Source(service="shop", environment="test", sdk="optimizely-sdk", sdk_version="5.7.0")


SAID = ("on", True, True, "experiment")
DECISION = DecisionEvent(
    event_id="e",
    occurred_at=1,
    visitor_id="v",
    flag_key="f",
    enabled=True,
    variation_key="on",
    rule_key="r",
    decision_event_dispatched=True,
    rule_type="experiment",
    experiment_id="9",
    variation_id="10",
)


def digests(document: dict[str, Any], *exposures: tuple[str, str, str]) -> set[str]:
    """Return the digests of exposures for a report, without the product's code."""
    return {
        base64.urlsafe_b64encode(
            hashlib.blake2b(
                "\0".join(each).encode(), digest_size=9, key=document["instance"].encode()
            ).digest()
        ).decode()
        for each in exposures
    }


def publisher_to_nowhere(**more: Any) -> Publisher:
    return Publisher(bootstrap_servers="127.0.0.1:1", impressions_topic="counts", **more)


def impressions() -> Impressions:
    return Impressions(SOURCE, 1_000)


def reported(counted: Impressions, now_ms: int = 2_000) -> dict[str, Any]:
    report = counted.report(now_ms)
    assert report is not None
    document: dict[str, Any] = json.loads(report.value)
    assert document["instance"] == report.key
    return document


def impression(user: str, flag: str = "f", variation: str = "on") -> dict[str, Any]:
    """Return a LOG_EVENT's parameters, as the SDK builds them (`optimizely.event.payload`)."""
    told = {"flag_key": flag, "rule_key": "r", "variation_key": variation, "enabled": True}
    decision = {"experiment_id": "1", "metadata": {**told, "rule_type": "rollout"}}
    return {"visitors": [{"visitor_id": user, "snapshots": [{"decisions": [decision]}]}]}


def rows(document: dict[str, Any]) -> dict[tuple[str, str | None, str | None, str | None], int]:
    return {
        (row["flag_key"], row["variation_key"], row["rule_key"], row["rule_type"]): row["count"]
        for row in document["impressions"]
    }


@pytest.mark.parametrize("sends_all", [True, False])
def test_impressions_of_the_sdk_are_counted_by_flag_variation_and_rule(sends_all: bool) -> None:
    client = optimizely_client(sendFlagDecisions=sends_all, **TARGETED)
    counted = impressions()
    Attachment(client, lambda *_: None, counted.hear, lambda _: None).listen()
    decided: Counter[tuple[str, str | None, str | None]] = Counter()
    for number in range(40):
        user = user_of(client, f"v{number}")
        for key, decision in user.decide_all().items():
            decided[key, decision.variation_key if decision.enabled else "off", decision.rule_key] += 1
        client.activate("checkout_test", f"v{number}")  # an older method: its impression names no flag
        client.track("no such event", f"v{number}")

    types: dict[str | None, str] = {
        "checkout_test": "experiment",
        "vip_delivery": "delivery",
        "held_holdout": "holdout",
    }
    if sends_all:
        types |= {"banner_delivery": "delivery", "legacy_delivery": "delivery", None: "none"}
    expected = {(*shown, types[shown[2]]): n for shown, n in decided.items() if shown[2] in types}
    assert rows(reported(counted)) == expected
    assert set(decided) >= {("checkout", "off", "checkout_test"), ("checkout", "treatment", "checkout_test")}


def test_the_impressions_of_a_holdout_and_of_a_delivery_that_it_exempts_are_both_counted() -> None:
    client = optimizely_client(holdouts=[holdout("h9", "most", EVERYONE, excludeTargetedDeliveries=True)])
    counted = impressions()
    Attachment(client, lambda *_: None, counted.hear, lambda _: None).listen()
    user_of(client, "v").decide("banner")

    assert rows(reported(counted)) == {
        ("banner", "off", "most", "holdout"): 1,
        ("banner", "on", "banner_delivery", "delivery"): 1,
    }


def test_a_report_names_its_service_and_begins_where_the_last_one_ended() -> None:
    counted = impressions()
    assert counted.report(1_500) is None
    counted.hear(impression("v"), RuleTypes())
    first = reported(counted)
    counted.hear(impression("v"), RuleTypes())
    second = reported(counted, 3_000)

    assert {name: first[name] for name in ("service", "environment", "sdk", "sdk_version")} == {
        "service": "shop",
        "environment": "test",
        "sdk": "optimizely-sdk",
        "sdk_version": "5.7.0",
    }
    assert [(each["sequence"], each["since"], each["until"]) for each in (first, second)] == [
        (0, 1_000, 2_000),
        (1, 2_000, 3_000),
    ]
    assert "v" not in json.dumps(first["impressions"] + first["unpublished"]).split('"')


def test_decisions_that_are_not_on_the_topic_are_counted_if_there_was_an_impression() -> None:
    counted = impressions()
    counted.note_duplicate("f", SAID)
    counted.note_duplicate("f", SAID)
    for visitor in ("v1", "v2", "v1"):
        counted.note_lost("refused", "queue_full", "f", SAID, Exposure("1", "2", visitor))
    counted.note_lost(
        "failed", "msg_timed_out", "f", ("on", True, False, "experiment"), Exposure("1", "2", "v")
    )
    document = reported(counted)

    listed = sorted(digests(document, ("1", "2", "v1"), ("1", "2", "v2")))
    lost: list[dict[str, Any]] = [
        {"fate": "duplicates", "reason": None, "count": 2, "exposures": []},
        {"fate": "refused", "reason": "queue_full", "count": 3, "exposures": listed},
    ]
    assert document["unpublished"] == [
        {"flag_key": "f", "variation_key": "on", "rule_type": "experiment", **told} for told in lost
    ]


def test_refused_visitors_are_listed_up_to_a_limit_in_each_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flagpost_publisher.impressions.MAX_LISTED", 5)
    counted = impressions()
    documents = []
    for _ in range(2):
        for number in range(9):
            counted.note_lost(
                "refused", "queue_full", f"f{number % 2}", SAID, Exposure("1", "2", f"v{number}")
            )
        documents.append(reported(counted))
    assert [sum(row["count"] for row in document["unpublished"]) for document in documents] == [9, 9]
    lists = [[each for row in document["unpublished"] for each in row["exposures"]] for document in documents]
    assert [len(listed) for listed in lists] == [5, 5]
    assert set(lists[0]) == digests(documents[0], *(("1", "2", f"v{number}") for number in range(5)))


def test_a_visitor_has_another_digest_in_every_process_and_no_report_has_its_id() -> None:
    documents = []
    for _ in range(2):
        counted = impressions()
        counted.note_lost("refused", "queue_full", "f", SAID, Exposure("1", "2", "somebody@example.org"))
        documents.append(reported(counted))
    first, second = ({*document["unpublished"][0]["exposures"]} for document in documents)
    assert first.isdisjoint(second)
    assert "somebody" not in json.dumps(documents)


def test_visitors_that_the_publisher_refused_are_reported_by_optimizelys_ids() -> None:
    """Also if the attribute for Pendo's id is missing or invalid."""
    with publisher_to_nowhere(visitor_id="id", max_event_bytes=400) as publisher:
        client = optimizely_client()
        publisher.attach(client)
        given: dict[str, dict[str, Any]] = {
            "u1": {},
            "u2": {"id": 0.5},
            "u3": {"id": "x" * 500},
            "u4": {"id": "v"},
        }
        decided = {
            user: user_of(client, user, attributes).decide("checkout").variation_key or ""
            for user, attributes in given.items()
        }
        assert not publisher.publish(replace(DECISION, visitor_id="y" * 500))
        assert publisher.publish(DECISION)
        document = reported(publisher._here().impressions)
    listed = {(row["flag_key"], row["reason"]): {*row["exposures"]} for row in document["unpublished"]}
    assert {row["fate"] for row in document["unpublished"]} == {"refused"}
    known = {
        user: ("100", {"control": "101", "treatment": "102"}[variation], user)
        for user, variation in decided.items()
    }
    assert listed == {
        ("checkout", "no_visitor_id"): digests(document, known["u1"]),
        ("checkout", "invalid"): digests(document, known["u2"]),
        ("checkout", "too_large"): digests(document, known["u3"]),
        ("f", "too_large"): digests(document, ("9", "10", "y" * 500)),
    }


def test_decisions_that_close_gives_up_are_reported_as_failed() -> None:
    with publisher_to_nowhere() as publisher:
        for number in range(3):
            assert publisher.publish(replace(DECISION, visitor_id=f"v{number}"))
        assert publisher.close(0.1) == 3
    waiting = publisher._here().reporting._report
    assert waiting is not None  # Kafka does not take the report either
    document = json.loads(waiting.value)
    (row,) = document["unpublished"]
    assert (row["fate"], row["reason"], row["count"]) == ("failed", "closed", 3)
    assert {*row["exposures"]} == digests(document, *(("9", "10", f"v{number}") for number in range(3)))


def test_impressions_that_do_not_fit_are_reported_as_uncounted() -> None:
    counted = impressions()
    for number in range(MAX_WAITING + 5):  # the thread counts none of them
        counted.hear(impression(f"v{number}"), RuleTypes())
    first = reported(counted)
    for number in range(MAX_ROWS + 7):
        counted.hear(impression("v", variation=str(number)), RuleTypes())
        counted.count()
    second = reported(counted)
    counted.hear(impression("v", flag="x" * MAX_REPORT_BYTES), RuleTypes())
    third = reported(counted)

    assert (sum(rows(first).values()), first["uncounted"]) == (MAX_WAITING, 5)
    assert (sum(rows(second).values()), second["uncounted"]) == (MAX_ROWS, 7)
    assert (third["impressions"], third["uncounted"]) == ([], 1)


class Kafka:
    """A producer that keeps what is written; it reports a delivery when it is polled."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.made = 0
        self.answer: Callable[[], KafkaError | None] | None = lambda: None
        """None: no answer comes."""
        self._report: Callable[[KafkaError | None, object], None] | None = None

    def make(self, config: dict[str, Any], *, logger: object) -> Kafka:
        assert logger is not None
        assert not config["delivery.report.only.error"]
        self.made += 1
        return self

    def produce(self, topic: str, value: bytes, key: str, *, on_delivery: Any) -> None:
        assert (topic, bool(key)) == ("counts", True)
        self.written.append(value)
        self._report = on_delivery

    def poll(self, _seconds: float) -> None:
        if self.answer is not None and self._report is not None:
            report, self._report = self._report, None
            report(self.answer(), None)


class Stage:
    """A Reporting with its Kafka and its clock."""

    def __init__(self, topic: str | None = "counts") -> None:
        self.now = 0.0
        self.kafka = Kafka()
        self.counted = impressions()
        self.told: list[Exception] = []
        self.complaints = Complaints(self.told.append)
        self.reporting = Reporting(
            _options(topic),
            self.counted,
            self.complaints,
            make=self.kafka.make,  # type: ignore[arg-type]
            clock=lambda: self.now,
        )

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.reporting.tend()

    def hear(self) -> None:
        self.counted.hear(impression("v"), RuleTypes())

    def sequences(self) -> list[int]:
        return [json.loads(value)["sequence"] for value in self.kafka.written]


def _options(topic: str | None) -> Options:
    return Options(
        bootstrap_servers="x",
        topic="t",
        service=None,
        environment=None,
        schema_registry_url=None,
        visitor_id=None,
        account_id=None,
        attributes=(),
        dedupe_ttl_seconds=60,
        dedupe_max_entries=1,
        queue_max_messages=1,
        consent=None,
        properties={},
        on_error=None,
        impressions_topic=topic,
    )


def test_reports_are_written_once_a_minute_if_there_is_something_to_report() -> None:
    stage = Stage()
    stage.hear()
    stage.after(INTERVAL_SECONDS - 1)
    assert stage.kafka.made == 0
    stage.after(1)
    stage.after(INTERVAL_SECONDS)
    stage.hear()
    stage.after(INTERVAL_SECONDS)
    assert stage.sequences() == [0, 1]
    assert stage.told == []


def test_a_report_that_kafka_did_not_take_is_written_again_unchanged_after_growing_pauses() -> None:
    stage = Stage()
    stage.kafka.answer = None
    stage.hear()
    stage.after(INTERVAL_SECONDS)
    stage.hear()
    stage.after(PATIENCE_SECONDS)
    stage.after(INTERVAL_SECONDS)
    stage.kafka.answer = lambda: KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    stage.after(1)
    stage.after(2 * INTERVAL_SECONDS - 1)
    assert len(set(stage.kafka.written)) == 1
    assert len(stage.kafka.written) == 2
    stage.kafka.answer = lambda: None
    stage.after(1)
    stage.after(INTERVAL_SECONDS)
    assert stage.sequences() == [0, 0, 0, 1]
    stage.complaints.tell_now()
    (error,) = stage.told
    assert "counts of impressions are not on counts yet" in str(error)


def test_finish_writes_the_waiting_report_and_the_impressions_after_it() -> None:
    stage = Stage()
    stage.kafka.answer = None
    stage.hear()
    stage.after(INTERVAL_SECONDS)
    stage.hear()
    stage.kafka.answer = lambda: None
    stage.reporting.finish(10)
    assert stage.sequences() == [0, 1]


def test_finish_waits_for_kafka_for_a_limited_time() -> None:
    stage = Stage()
    stage.kafka.answer = None
    stage.kafka.poll = lambda _seconds: setattr(stage, "now", stage.now + 0.4)  # type: ignore[method-assign]
    stage.hear()
    stage.reporting.finish(10)
    assert stage.now == pytest.approx(1.2)
    stage.reporting.finish(0)
    assert stage.now == pytest.approx(1.2)


def test_an_error_of_the_producer_is_reported_and_the_report_retried() -> None:
    stage = Stage()

    def raising(*_arguments: object, **_more: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    stage.hear()
    stage.kafka.produce = raising  # type: ignore[method-assign]
    stage.after(INTERVAL_SECONDS)
    del stage.kafka.produce
    stage.kafka.poll = raising  # type: ignore[method-assign]
    stage.after(INTERVAL_SECONDS)
    del stage.kafka.poll
    stage.after(2 * INTERVAL_SECONDS)
    assert stage.sequences() == [0, 0]
    stage.complaints.tell_now()
    assert [getattr(error, "kind", None) for error in stage.told] == ["impressions"]


def test_a_part_of_the_time_to_close_is_kept_for_the_last_report() -> None:
    assert [Stage().reporting.seconds_to_finish(seconds) for seconds in (0, 2, 10)] == [0, 0.5, 1]
    assert Stage(None).reporting.seconds_to_finish(10) == 0


def test_without_a_topic_nothing_is_written() -> None:
    stage = Stage(None)
    stage.hear()
    stage.after(10 * INTERVAL_SECONDS)
    stage.reporting.finish(10)
    assert stage.kafka.made == 0
