"""`flagpost rehearse` after runs of the real consumer: nothing differs, and a changed setting has just its effect."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import CLOSE_AFTER_RECORDING
from flagpost_schemas import AccountMetadata, DecisionEvent, Event, TrackEvent
from ledger_writing import History
from scenes import SHORT_SESSION, Scene
from traffic import produce

GRANTED = {"analytics": True}
FAST = {"delivery__visitor_interval_seconds": 0.05, "metadata__linger_seconds": 0.1}


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def shown(visitor: str, flag: str, occurred_at: int, **fields: object) -> DecisionEvent:
    known = {"event_id": f"{visitor}-{flag}-{occurred_at}", "consent": GRANTED, "occurred_at": occurred_at}
    return decision(visitor, flag, **{**known, **fields})  # type: ignore[arg-type]


def first_wave(now: int) -> list[Event]:
    """Events of each kind that a setting distinguishes, mostly in different numbers."""
    return [
        *(shown(f"v{n}", "checkout", now - 200_000) for n in range(10)),
        *(shown(f"s{n}", "search", now) for n in range(5)),
        *(shown(f"r{n}", "rollout", now, decision_event_dispatched=False) for n in range(4)),
        *(shown(f"d{n}", "checkout", now, consent={"analytics": False}) for n in range(3)),
        *(shown(f"q{n}", "checkout", now, consent=None) for n in range(6)),
        *(shown(f"o{n}", "checkout", now - 7_200_000) for n in range(3)),
        shown("bad", "checkout", now),
        *(
            TrackEvent(event_id=f"n{n}", occurred_at=now, anonymous_id="x", event="Seen", consent=GRANTED)
            for n in range(2)
        ),
        *(
            TrackEvent(
                event_id=f"p{n}", occurred_at=now, visitor_id=f"p{n}", event="Bought", consent=GRANTED,
                properties={"order id": 7},
            )
            for n in range(7)
        ),
        AccountMetadata(
            event_id="a", occurred_at=now, account_id="acme", values={"plan": "pro"}, consent=GRANTED
        ),
    ]  # fmt: skip


def second_wave(now: int) -> list[Event]:
    """The first ten decisions again, 100 s later by event time."""
    return [shown(f"v{n}", "checkout", now - 100_000) for n in range(10)]


CHANGES: dict[str, tuple[dict[str, object], dict[str, int]]] = {
    "a shorter memory for duplicates": (
        {"dedupe__ttl_seconds": 60},
        {"track: dedupe -> ok": 10, "visitor_metadata: unchanged -> ok": 10},
    ),
    "a flag that is left out": (
        {"decisions__flags_deny": ["sea*"]},
        {"track: ok -> flag_filtered": 5, "visitor_metadata: ok -> flag_filtered": 5},
    ),
    "experiments only": (
        {"decisions__experiments_only": True},
        {"track: ok -> not_dispatched": 4, "visitor_metadata: ok -> not_dispatched": 4},
    ),
    "a shorter life": ({"delivery__max_age_seconds": 3600}, {"track: ok -> expired": 3}),
    "consent that must be there": (
        {"consent__required": True},
        {"track: ok -> no_consent": 6, "visitor_metadata: ok -> no_consent": 6},
    ),
    "another category of consent": (
        {"consent__category": "marketing"},
        {"track: no_consent -> ok": 3, "visitor_metadata: no_consent -> ok": 3},
    ),
    "no metadata for decisions": (
        {"decisions__visitor_metadata": False},
        {
            "visitor_metadata: ok -> -": 29,
            "visitor_metadata: unchanged -> -": 10,
            "visitor_metadata: no_consent -> -": 3,
        },
    ),
    "properties that are refused": ({"mapping__properties_policy": "reject"}, {"track: ok -> invalid": 7}),
    "visitors without a name": ({"mapping__anonymous": "as_visitor"}, {"track: no_visitor_id -> ok": 2}),
    "visitors without a name, as Pendo names them": (
        {"mapping__anonymous": "as_anonymous"},
        {"track: no_visitor_id -> ok": 2},
    ),
    "what changes no ending": ({"decisions__metadata_field": "seen {flag_key}"}, {}),
}


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


async def rehearsed(history: History, *arguments: str, **settings: object) -> tuple[int, dict[str, Any]]:
    """Run `rehearse --json`; returns the exit code and the document."""
    done = await asyncio.to_thread(lambda: history.run("rehearse", "--json", *arguments, **settings))
    assert done.stdout, done.stderr
    return done.returncode, orjson.loads(done.stdout)


def told(found: dict[str, Any]) -> dict[str, int]:
    """The differences as `kind: ledger -> rehearsed`, with their counts."""

    def name(ending: dict[str, str] | None) -> str:
        return "-" if ending is None else ending["reason"]

    return {
        f"{row['kind']}: {name(row['ledger'])} -> {name(row['rehearsed'])}": row["count"]
        for row in found["differences"]
    }


def kept(history: History) -> dict[tuple[str, int], object]:
    """Each partition's watermarks and the group's committed offset, to see that nothing was written."""
    scene = history.scene
    consumer = Consumer(
        {
            "bootstrap.servers": scene.kafka.bootstrap_servers,
            "group.id": history.group,
            "fetch.wait.max.ms": 20,
        }
    )
    found: dict[tuple[str, int], object] = {}
    for topic in (scene.topic, scene.ledger, scene.dead_letters):
        for number in range(scene.partitions):
            partition = TopicPartition(topic, number)
            (committed,) = consumer.committed([partition], timeout=stretched(20))
            found[topic, number] = (
                consumer.get_watermark_offsets(partition, timeout=stretched(20)),
                committed.offset,
            )
    consumer.close()
    return found


async def test_each_changed_setting_does_what_it_says_and_nothing_else(history: History) -> None:
    scene, now = history.scene, wall_ms()
    scene.pendo.faults.visitor("bad", 422)
    scene.publish(first_wave(now))
    produce(scene.kafka.bootstrap_servers, scene.topic, b"x", b"no avro")
    with scene.consume(**FAST) as consumer:
        await consumer.caught_up(scene.partitions)
        between = wall_ms()
        scene.publish(second_wave(now))
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    before = kept(history)
    requests = scene.pendo.received.recorded()
    code, found = await rehearsed(history)
    assert (code, told(found), found["compared"]) == (0, {}, 95)
    assert not any(found["left_out"].values())
    since = datetime.fromtimestamp(between / 1000, UTC).isoformat()
    code, found = await rehearsed(history, "--since", since)
    assert (code, told(found), found["compared"]) == (0, {}, 20), "what was before the window is known"
    for name, (settings, expected) in CHANGES.items():
        code, found = await rehearsed(history, **settings)
        assert (code, told(found)) == (1 if expected else 0, expected), name
        assert found["same"] == 95 - sum(expected.values()), name
    assert kept(history) == before, "nothing is written to Kafka"
    assert scene.pendo.received.recorded() == requests, "nothing is sent to Pendo"
    shown_to_people = await asyncio.to_thread(lambda: history.run("rehearse", dedupe__ttl_seconds=60))
    assert shown_to_people.returncode == 1
    assert "20 of 95 deliveries would end differently." in shown_to_people.stdout
    assert "duplicate/dedupe" in shown_to_people.stdout


async def test_nothing_differs_after_crashes_failures_and_a_replay(history: History) -> None:
    scene, now = history.scene, wall_ms()
    scene.pendo.faults.visitor("v3", afterwards=422)
    scene.pendo.faults.visitor("v5", CLOSE_AFTER_RECORDING)
    waves = [
        [
            shown(f"v{n % 12}", ("a", "b")[n // 12 % 2], now + n, variation=("x", "y")[n // 24 % 2])
            for n in range(60 * wave, 60 * wave + 60)
        ]
        for wave in range(3)
    ]
    scene.publish(waves[0])
    with scene.consume(**FAST, **SHORT_SESSION) as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() >= 10, 30)
        consumer.signal(signal.SIGKILL)
        await consumer.wait()
    scene.publish(waves[1])
    with scene.consume(**FAST, **SHORT_SESSION) as consumer:
        await consumer.caught_up(scene.partitions)
        scene.pendo.faults.visitor("v3")
        done = await asyncio.to_thread(lambda: history.run("dead-letters", "replay", "--json"))
        assert orjson.loads(done.stdout)["replayed"] > 0
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    scene.publish(waves[2])
    with scene.consume(**FAST) as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    code, found = await rehearsed(history)
    assert (code, told(found)) == (0, {})
    assert found["compared"] + sum(found["left_out"].values()) >= 360
    assert found["compared"] >= 350
