"""The sample application decides with the real SDK, sends only to Kafka, and reports exact counts."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests
from optimizely.event_dispatcher import EventDispatcher
from optimizely.helpers.enums import NotificationTypes
from optimizely.optimizely_user_context import UserAttributes

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.sample_app import FLAGS, Crowd, Decided, optimizely_client, variation_as_sent
from flagpost_schemas import DecisionEvent, Decoder, TrackEvent
from kafka_reading import read_topic
from real_kafka.processes import free_port

PROGRAM = [sys.executable, "-m", "flagpost_consumer.demo.sample_app"]
DEADLINE_SECONDS = 30

Infos = list[dict[str, Any]]


def told_by_the_sdk(visitors: int) -> Infos:
    """Return the SDK's notifications of the decisions about every flag for so many visitors."""
    client = optimizely_client()
    infos: Infos = []
    client.notification_center.add_notification_listener(
        NotificationTypes.DECISION, lambda _type, _user, _attributes, info: infos.append(info)
    )
    for number in range(visitors):
        user = client.create_user_context(f"visitor-{number}", UserAttributes({}))
        assert user is not None
        for flag in FLAGS:
            user.decide(flag)
    return infos


def test_the_datafile_has_every_kind_of_rule() -> None:
    told = {
        (info["flag_key"], info["variation_key"], info["rule_key"], info["enabled"])
        for info in told_by_the_sdk(400)
    }
    assert told == {
        ("checkout_redesign", "control", "checkout_redesign_ab", True),
        ("checkout_redesign", "treatment", "checkout_redesign_ab", True),
        ("search_ranking", "by_date", "search_ranking_abc", True),
        ("search_ranking", "by_price", "search_ranking_abc", True),
        ("search_ranking", "by_relevance", "search_ranking_abc", True),
        ("dark_mode", "on", "dark_mode_delivery", True),
        ("dark_mode", "off", "dark_mode_everyone_else", False),
        ("legacy_banner", "off", "legacy_banner_everyone_else", False),
        *((flag, "held_out", "demo_holdout", False) for flag in FLAGS),
    }


def test_nothing_is_sent_to_optimizely_and_impressions_count_as_dispatched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(EventDispatcher, "dispatch_event", sent.append)
    monkeypatch.setattr(requests.Session, "send", lambda *call, **_options: sent.append(call))
    infos = told_by_the_sdk(20)
    assert all(info["decision_event_dispatched"] for info in infos)
    assert len(infos) == 20 * len(FLAGS)
    assert sent == []


def test_decisions_are_counted_by_the_variation_as_sent() -> None:
    user = optimizely_client().create_user_context("visitor-1", UserAttributes({}))
    assert user is not None
    off = user.decide("legacy_banner")
    assert (off.variation_key, off.enabled, variation_as_sent(off)) == ("off", False, "off")

    decided = Decided()
    for visitor in ("v1", "v1", "v2"):
        decided.note(visitor, "legacy_banner", off)
    assert decided.rows() == [
        {"flag_key": "legacy_banner", "variation_key": "off", "decisions": 3, "visitors": 2}
    ]


def test_a_few_visitors_make_most_of_the_traffic() -> None:
    crowd = Crowd(200, seed=1)
    visits = Counter(crowd.next() for _ in range(5_000))
    assert set(visits) <= set(range(200))
    assert sum(count for _, count in visits.most_common(20)) > 2_500
    assert visits[0] > 10 * visits[150]


def test_the_same_seed_gives_the_same_visits() -> None:
    def visits(seed: int) -> list[int]:
        crowd = Crowd(200, seed)
        return [crowd.next() for _ in range(100)]

    assert visits(3) == visits(3)
    assert visits(3) != visits(4)


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"whole": 6, "cut": 1}) as broker:
        yield broker


def test_its_counts_are_those_of_the_topic(kafka: EmbeddedKafka) -> None:
    options = [
        "--topic",
        "whole",
        "--rate",
        "400",
        "--seconds",
        "1.5",
        "--visitors",
        "40",
        "--local-ttl",
        "0.5",
    ]
    ended = subprocess.run(
        [*PROGRAM, "--bootstrap-servers", kafka.bootstrap_servers, *options],
        capture_output=True,
        timeout=stretched(DEADLINE_SECONDS),
        check=True,
    )
    assert ended.stderr == b""
    *progress, final = [orjson.loads(line) for line in ended.stdout.splitlines()]
    assert [line["kind"] for line in progress] == ["progress"] * len(progress)
    assert progress
    counted = [line["decisions"] for line in (*progress, final)]
    assert counted == sorted(counted)

    stats = final["publisher"]
    assert final["kind"] == "final"
    assert final["decisions"] == sum(row["decisions"] for row in final["rows"])
    assert final["decisions"] == final["decisions_published"] + stats["duplicates"]
    assert (stats["queued"], stats["refused"], stats["failed"]) == (0, 0, 0)
    assert stats["duplicates"] > 0

    events = [Decoder().decode(record.value) for record in read_topic(kafka.bootstrap_servers, "whole")]
    decisions = [event for event in events if isinstance(event, DecisionEvent)]
    assert len(events) == stats["accepted"] == stats["delivered"]
    assert len(decisions) == final["decisions_published"]
    assert sum(isinstance(event, TrackEvent) for event in events) == final["track_events"] > 0
    rows = {(row["flag_key"], row["variation_key"]): row["visitors"] for row in final["rows"]}
    on_topic = {
        (event.flag_key, event.variation_key if event.enabled else "off", event.visitor_id)
        for event in decisions
    }
    assert Counter((flag, variation) for flag, variation, _ in on_topic) == rows


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_everything_flushed(kafka: EmbeddedKafka, number: signal.Signals) -> None:
    command = [*PROGRAM, "--bootstrap-servers", kafka.bootstrap_servers, "--topic", "cut", "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as app:
        assert app.stdout is not None
        assert orjson.loads(app.stdout.readline())["kind"] == "progress"
        app.send_signal(number)
        output, errors = app.communicate(timeout=stretched(DEADLINE_SECONDS))
    final = orjson.loads(output.splitlines()[-1])
    assert (app.returncode, errors) == (0, b"")
    assert final["kind"] == "final"
    assert final["publisher"]["delivered"] == final["publisher"]["accepted"] > 0


def test_the_publishers_numbers_can_be_scraped(kafka: EmbeddedKafka) -> None:
    port = free_port()
    options = ["--topic", "cut", "--seconds", "inf", "--report-seconds", "0.05", "--metrics-port", str(port)]
    command = [*PROGRAM, "--bootstrap-servers", kafka.bootstrap_servers, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as app:
        assert app.stdout is not None
        told = next(line for line in map(orjson.loads, app.stdout) if line["publisher"]["accepted"])
        scraped = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=stretched(DEADLINE_SECONDS)).text
        app.terminate()
        app.communicate(timeout=stretched(DEADLINE_SECONDS))
    (accepted,) = re.findall(r"^flagpost_publisher_accepted_total (.+)$", scraped, re.MULTILINE)
    assert float(accepted) >= told["publisher"]["accepted"]
    assert app.returncode == 0


def test_a_metrics_port_in_use_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*PROGRAM, "--bootstrap-servers", "127.0.0.1:1", "--metrics-port", str(port)],
            capture_output=True,
            text=True,
            timeout=stretched(DEADLINE_SECONDS),
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_events_that_kafka_does_not_take_are_reported() -> None:
    options = ["--bootstrap-servers", "127.0.0.1:1", "--seconds", "0.1", "--flush-seconds", "0.2"]
    ended = subprocess.run(
        [*PROGRAM, *options], capture_output=True, timeout=stretched(DEADLINE_SECONDS), check=False
    )
    final = orjson.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 1
    assert final["publisher"]["failed"] == final["publisher"]["accepted"] > 0
    assert b"Kafka at 127.0.0.1:1 did not take" in ended.stderr


@pytest.mark.parametrize("option", ["--rate", "--seconds", "--visitors", "--report-seconds"])
def test_impossible_options_are_refused(option: str) -> None:
    ended = subprocess.run(
        [*PROGRAM, "--bootstrap-servers", "127.0.0.1:1", option, "0"],
        capture_output=True,
        timeout=stretched(DEADLINE_SECONDS),
        check=False,
    )
    assert ended.returncode == 2
    assert option.encode() in ended.stderr
