"""Every number of the page, compared with what was published and what the Pendo stand-in received."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from real_kafka.broker import OwnBroker
from running import eventually
from scenes import Scene
from traffic import produce
from web_comparing import numbers, rows_of, same_as_reconcile, settled
from web_running import READ_ANEW, RunningWeb
from web_story import FLAG, SETTINGS, Story, delivered, story, tell

pytestmark = [pytest.mark.kafka]

SECONDS = 60.0
OLD = "these numbers are old"


@pytest.fixture
async def told(scene: Scene) -> AsyncIterator[tuple[Scene, Story, RunningWeb]]:
    """The story, delivered as far as possible, and the page that shows it."""
    told = story()
    tell(scene, told)
    with scene.consume(**SETTINGS) as consumer:
        await consumer.caught_up(scene.partitions)
        with RunningWeb({**scene.settings, "web.consumers": [consumer.admin_url]}) as page:
            await settled(page, scene)
            yield scene, told, page
            assert page.logged(READ_ANEW) == []
            assert await page.stop() == 0
        assert await consumer.stop() == 0


async def test_the_numbers_are_those_of_what_was_published_and_received(
    told: tuple[Scene, Story, RunningWeb],
) -> None:
    scene, what, page = told
    decided, at_pendo, published = what.decided(), delivered(scene.pendo.received), what.published()
    variations = await asyncio.to_thread(rows_of, page, "variations", "Variation", flag=FLAG)
    del decided["on"], published["on"]  # of the other flag
    assert {name: row["Decided"] for name, row in variations.items()} == {
        name: len(visitors) for name, visitors in decided.items()
    }
    assert {name: row["Delivered"] for name, row in variations.items()} == {
        name: len(visitors) for name, visitors in at_pendo.items()
    }
    lost = Counter(variation for _, variation in what.lost)
    assert {name: row["Lost"] for name, row in variations.items()} == {name: lost[name] for name in decided}
    assert [row["Pending"] for row in variations.values()] == [0, 0, 0]
    reasons = await asyncio.to_thread(rows_of, page, "reasons", "Reason", flag=FLAG)
    expected = Counter((reason, variation) for (_, variation), reason in what.lost.items())
    shown = {(reason, name): count for reason, row in reasons.items() for name, count in row.items() if count}
    assert shown == expected
    deliveries = await asyncio.to_thread(rows_of, page, "deliveries-of", "Variation", flag=FLAG)
    assert {name: row["Published"] for name, row in deliveries.items()} == published
    received = {name: scene.pendo.received.decisions[FLAG, name] for name in ("control", "treatment", "off")}
    assert {name: row["Delivered"] for name, row in deliveries.items()} == received


async def test_the_numbers_are_those_of_reconcile(told: tuple[Scene, Story, RunningWeb]) -> None:
    scene, _, page = told
    await asyncio.to_thread(same_as_reconcile, page, scene)


async def test_the_steps_of_time_add_up_to_the_table(told: tuple[Scene, Story, RunningWeb]) -> None:
    """All decisions are in one step, or in two; in each step a visitor counts once."""
    _, _, page = told
    variations = await asyncio.to_thread(rows_of, page, "variations", "Variation", flag=FLAG)
    steps = await asyncio.to_thread(page.table, "steps", flag=FLAG)
    for name in ("control", "treatment", "off"):
        own = [numbers(row) for row in steps if row["Variation"] == name]
        assert sum(row["Decided"] for row in own) >= variations[name]["Decided"]
        assert len(own) > 1 or own[0]["Decided"] == variations[name]["Decided"]
        for row in own:
            assert row["Decided"] == row["Delivered"] + row["Lost"] + row["Pending"]


async def test_dead_letters_by_reason_and_one_opened(told: tuple[Scene, Story, RunningWeb]) -> None:
    _, what, page = told
    by_reason = await asyncio.to_thread(page.table, "dead-letters-by-reason")
    rejected = [visitor for (visitor, _), reason in what.lost.items() if reason == "rejected"]
    shown = {(row["Reason"], row["Kind"]): int(row["Waiting"]) for row in by_reason}
    # A duplicate read after its original was dead-lettered is sent, and becomes a dead letter of its own.
    assert shown["rejected", "track"] >= len(rejected)
    letters = await asyncio.to_thread(page.table, "dead-letters", reason="rejected")
    assert len(letters) == sum(count for (reason, _), count in shown.items() if reason == "rejected")
    assert all(letter["Key"].startswith("hidden-") for letter in letters)
    opened = await asyncio.to_thread(page.get, f"/dead-letter?place={letters[0]['Place']}")
    assert opened.status == 200
    assert "rejected" in opened.text
    assert "web.show_ids" in opened.text
    assert not any(visitor in opened.text for visitor in rejected)
    nothing = await asyncio.to_thread(page.get, "/dead-letter?place=0/999999")
    assert (nothing.status, "has no record at 0/999999" in nothing.text) == (404, True)


async def test_pendos_state_is_the_one_that_the_consumers_report(
    told: tuple[Scene, Story, RunningWeb],
) -> None:
    _, _, page = told
    await eventually(lambda: page.table("pendo"), SECONDS)
    (row,) = page.table("pendo")
    assert (row["Track"], row["Metadata"], row["Partitions"], row["Pending"]) == ("ok", "ok", "4", "0")


async def test_later_settlements_and_replays_are_shown(told: tuple[Scene, Story, RunningWeb]) -> None:
    scene, _, page = told
    before = await asyncio.to_thread(rows_of, page, "deliveries", "Deliveries")
    scene.publish([decision("late", "search", "on", occurred_at=time.time_ns() // 1_000_000)])
    produce(scene.kafka.bootstrap_servers, scene.topic, b"x", b"no avro")
    await settled(page, scene)
    after = await asyncio.to_thread(rows_of, page, "deliveries", "Deliveries")
    grown = {
        name: {count: row[count] - before[name][count] for count in row if row[count] != before[name][count]}
        for name, row in after.items()
    }
    assert list(grown.values()) == [
        {"Published": 2, "Delivered": 1, "Dead lettered": 1},
        {"Published": 1, "Dead lettered": 1},
        {"Published": 1, "Delivered": 1},
    ]


async def test_sample_ratios_are_compared_with_the_split_that_publishers_report(scene: Scene) -> None:
    """Nine of ten visitors are meant to see the treatment; without a report, an even split would be expected."""
    reports = scene.topic.replace("events", "impressions")
    scene.kafka.create_topics(reports, partitions=2)
    shown = ["control"] * 6 + ["treatment"] * 54
    scene.publish(
        [
            decision(f"v{n}", variation=each, rule_key="ab", rule_type="experiment")
            for n, each in enumerate(shown)
        ]
    )

    def verdicts() -> set[str]:
        return {row["Sample ratio"] for row in page.table("flags")}

    with RunningWeb({**scene.settings, "kafka.impressions_topic": reports}) as page:
        await page.until_read()
        await eventually(lambda: len(verdicts()) == 1 and verdicts() != {"as expected"}, SECONDS)
        split = {"flag_key": "checkout", "rule_key": "ab", "shares": {"control": 1, "treatment": 9}}
        report = orjson.dumps({"until": time.time_ns() // 1_000_000, "splits": [split]})
        for value in (b"none of ours", report):
            produce(scene.kafka.bootstrap_servers, reports, b"", value)
        await eventually(lambda: verdicts() == {"as expected"}, SECONDS)
        assert await page.stop() == 0


async def test_a_topic_that_was_recreated_is_read_from_its_beginning(scene: Scene) -> None:
    def published() -> int:
        answer = page.get("/csv/flags")
        return len(answer.text.splitlines()) - 1 if answer.status == 200 else 0

    now = time.time_ns() // 1_000_000
    scene.publish([decision(f"v{n}", f"old-{n}", "on", occurred_at=now) for n in range(9)])
    with RunningWeb(scene.settings) as page:
        await eventually(lambda: published() == 9, SECONDS)
        await asyncio.to_thread(scene.kafka.make_anew, scene.topic, scene.partitions)
        scene.publish([decision("v", "new", "on", occurred_at=now)])
        await eventually(lambda: [row["Flag"] for row in page.table("flags")] == ["new"], SECONDS)
        assert await page.stop() == 0


async def test_through_a_restart_of_the_broker_the_numbers_stay_those_of_reconcile(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    """The short form of `tests/chaos/web_soak.py`."""
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka_broker, pendo, fresh_name("restart"))
        first, second = story(20), story(40)
        tell(scene, first)
        with scene.consume(**SETTINGS) as consumer, RunningWeb(scene.settings) as page:
            await consumer.caught_up(scene.partitions)
            await settled(page, scene)
            await asyncio.to_thread(kafka_broker.kill)
            # The page still shows what it has read, and says that it is old.
            await eventually(lambda: OLD in page.get("/").text, SECONDS)
            await asyncio.to_thread(kafka_broker.restart)
            tell(scene, second)
            await consumer.caught_up(scene.partitions)
            await settled(page, scene)
            await asyncio.to_thread(same_as_reconcile, page, scene)
            await eventually(lambda: OLD not in page.get("/").text, SECONDS)
            assert page.logged(READ_ANEW) == []
            assert await page.stop() == 0
            assert await consumer.stop() == 0
