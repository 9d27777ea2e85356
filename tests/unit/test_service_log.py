"""The service's log: its first line, a summary each minute, Pendo's state, and the return of Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from engine_steps import TRACKS_ONLY, answer_all, damaged, engine_with, instant, settle_all
from engine_world import decision, record
from flagpost_consumer import __version__
from flagpost_consumer.adapters.kafka.contact import ASK_SECONDS, KafkaContact
from flagpost_consumer.adapters.pendo.advice import what_to_do
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_consumer.service.log import PendoStates, Summary, say_start
from flagpost_consumer.settings import Needs, load_settings

SECRETS = ("s-track-secret", "s-integration-key", "s-sasl-password", "s-registry", "s-proxy")


def said(**fields: object) -> dict[str, object]:
    """Return a summary's fields; those not given are as if nothing had happened."""
    usual = {
        "event": "summary",
        "log_level": "info",
        "consumed": 0,
        "delivered": 0,
        "duplicates": 0,
        "dropped": 0,
        "dead_lettered": 0,
        "pending": 0,
        "track_state": "ok",
        "metadata_state": "ok",
    }
    return {**usual, **fields}


def summaries(summary: Summary) -> Sequence[Mapping[str, Any]]:
    with capture_logs() as lines:
        summary.say()
    return lines


def test_the_first_line_says_what_runs_and_no_secret() -> None:
    given = {
        "KAFKA__BOOTSTRAP_SERVERS": "k1:9092",
        "KAFKA__GROUP_ID": "eu",
        "KAFKA__PROPERTIES": '{"sasl.password": "s-sasl-password", "client.id": "mine"}',
        "KAFKA__SCHEMA_REGISTRY__URL": "https://registry.example",
        "KAFKA__SCHEMA_REGISTRY__USERNAME": "u",
        "KAFKA__SCHEMA_REGISTRY__PASSWORD": "s-registry",
        "PENDO__TRACK_SECRET": "s-track-secret",
        "PENDO__INTEGRATION_KEY": "s-integration-key",
        "PENDO__REGION": "eu",
        "PENDO__PROXY": "http://u:s-proxy@proxy:3128",
        "DELIVERY__MAX_PENDING": "5000",
        "SELECT__ACCOUNTS": '{"allow": ["personal-account"]}',
        "DECISIONS__FLAGS_DENY": '["internal-*"]',
    }
    settings = load_settings(None, {f"FLAGPOST_{k}": v for k, v in given.items()}, Needs.KAFKA | Needs.PENDO)
    with capture_logs() as lines:
        say_start(settings)
    (line,) = lines
    assert {name: line[name] for name in line if name not in ("settings", "event", "log_level")} == {
        "version": __version__,
        "group": "eu",
        "topic": "flagpost.events",
        "ledger_topic": "flagpost.ledger",
        "dead_letter_topic": "flagpost.dead-letters",
        "suppressions_topic": "flagpost.suppressions",
        "pendo_track_host": "data.eu.pendo.io",
        "pendo_api_host": "app.eu.pendo.io",
    }
    assert line["settings"] == [
        "kafka.bootstrap_servers=k1:9092",
        "kafka.group_id=eu",
        "kafka.properties=client.id,sasl.password",
        "kafka.schema_registry.url=https://registry.example",
        "kafka.schema_registry.username=u",
        "kafka.schema_registry.password=***",
        "pendo.region=eu",
        "pendo.track_secret=***",
        "pendo.integration_key=***",
        "pendo.proxy=***",
        "delivery.max_pending=5000",
        "select.accounts.allow=***",
        'decisions.flags_deny=["internal-*"]',
    ]
    assert "personal-account" not in str(line)
    assert not [secret for secret in SECRETS if secret in str(line)]


def test_a_summary_counts_by_outcome_and_reason_since_the_last_one() -> None:
    engine = engine_with(TRACKS_ONLY)
    summary = Summary(engine)
    events = [decision("a"), decision("a"), decision(""), decision("b", consent={"analytics": False})]
    engine.receive([record(event, offset) for offset, event in enumerate(events)], instant(2.0))
    engine.receive([damaged(4)], instant(2.0))
    (line,) = summaries(summary)
    assert (line["consumed"], line["pending"], line["delivered"]) == (5, 5, 0)
    settle_all(engine, 2.0)
    assert summaries(summary) == [
        said(
            log_level="warning",
            delivered=1,
            duplicates=1,
            dropped=2,
            dropped_no_visitor_id=1,
            dropped_no_consent=1,
            dead_lettered=1,
            dead_lettered_undecodable=1,
        )
    ]
    assert summaries(summary) == [], "nothing happens"
    engine.receive([record(decision("c"), 5)], instant(70.0))
    settle_all(engine, 70.0)
    assert summaries(summary) == [said(consumed=1, delivered=1)]


def test_while_pendo_is_down_there_is_a_summary_although_nothing_happens() -> None:
    engine = down(Answer(503))
    summary = Summary(engine)
    (line,) = summaries(summary)
    again = summaries(summary)
    assert (line["track_state"], line["log_level"]) == ("unreachable", "warning")
    assert [(each["track_state"], each["consumed"]) for each in again] == [("unreachable", 0)]


def down(answer: Answer) -> Engine:
    """Return an engine whose track endpoint has given this answer to many visitors."""
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision(f"v{n}"), n) for n in range(40)], instant(2.0))
    for second in range(2, 8):
        answer_all(engine, float(second), answer)
    return engine


@pytest.mark.parametrize(
    ("answer", "state", "status", "to_do"),
    [
        (Answer(503), "unreachable", "503", "status.pendo.io"),
        (Answer(failure=Failure.TIMEOUT), "unreachable", "timeout", "pendo.track_url"),
        (Answer(403), "unauthorized", "403", "pendo.track_secret"),
        (Answer(301), "unauthorized", "301", "pendo.region"),
        (Answer(429), "throttled", "429", "pendo.track_requests_per_minute"),
    ],
)
def test_pendos_state_comes_with_its_status_and_what_to_do(
    answer: Answer, state: str, status: str, to_do: str
) -> None:
    engine = down(answer)
    states = PendoStates(engine)
    states.note(EndpointName.TRACK, answer)
    with capture_logs() as lines:
        states.say()
        states.say()
    (line,) = lines
    assert (line["endpoint"], line["state"], line["status"]) == ("track", state, status)
    assert to_do in line["to_do"]
    assert line["log_level"] == "warning"
    assert states.why(EndpointName.TRACK, EndpointState.OK) == {}


def test_a_failure_of_tls_is_logged_with_its_detail() -> None:
    answer = Answer(failure=Failure.UNREACHABLE, detail="the certificate has expired")
    states = PendoStates(down(answer))
    states.note(EndpointName.TRACK, answer)
    with capture_logs() as lines:
        states.say()
    assert lines[0]["detail"] == "the certificate has expired"


@pytest.mark.parametrize("endpoint", EndpointName)
@pytest.mark.parametrize("status", [None, 301, 400, 401, 403, 404, 408, 422, 429, 500, 503])
def test_there_is_something_to_do_about_every_answer(endpoint: EndpointName, status: int | None) -> None:
    failure = Failure.BROKEN if status is None else None
    assert what_to_do(endpoint, Answer(status, failure=failure))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_for_kafka_is_logged_once_and_so_is_its_return() -> None:
    clock = Clock()
    contact = KafkaContact("events", clock)
    with capture_logs() as lines:
        contact.found("")
        assert not contact.asks()
        contact.hear(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        assert contact.asks()
        contact.found("Kafka does not answer: timed out")
        assert not contact.asks(), "not at once again"
        clock.now += ASK_SECONDS
        assert contact.asks()
        contact.found("Kafka does not answer: timed out")
        clock.now += 10.0
        contact.found("")
        assert not contact.asks()
    assert [(line["event"], line.get("seconds")) for line in lines] == [
        ("waiting for Kafka", None),
        ("Kafka is back", 12.0),
    ]


def test_an_error_of_one_broker_causes_no_question_to_kafka() -> None:
    contact = KafkaContact("events", Clock())
    contact.hear(KafkaError(KafkaError._TRANSPORT))
    assert not contact.asks()
    with capture_logs() as lines:
        contact.hear(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        contact.found("")
    assert lines == [], "it was back before anybody noticed"
