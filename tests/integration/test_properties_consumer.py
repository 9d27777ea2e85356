"""For each broken property rule: preview, the body that Pendo received and the consumer's counter agree."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest
from click.testing import CliRunner

from broken_properties import BROKEN
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_schemas import TrackEvent
from running import RunningConsumer, total
from scenes import Scene


def broken(rule: Rule) -> TrackEvent:
    """An event that breaks a rule; each rule has its own visitor, so that no event waits for its turn."""
    return TrackEvent(
        event_id=rule.value,
        occurred_at=time.time_ns() // 1_000_000,
        visitor_id=f"v-{rule.value}",
        event="Clicked",
        properties=dict(BROKEN[rule]),
    )


def preview(event: TrackEvent) -> tuple[str, Counter[str]]:
    """Run `flagpost preview`; returns the body that would be sent, and the number of repairs by rule."""
    document = {
        "type": "track",
        "event_id": event.event_id,
        "occurred_at": event.occurred_at,
        "visitor_id": event.visitor_id,
        "event": event.event,
        "properties": event.properties,
    }
    result = CliRunner().invoke(flagpost, ["preview", "--json"], input=json.dumps(document))
    shown = json.loads(result.stdout)
    return shown["requests"][0]["body"], Counter(repair["rule"] for repair in shown["repairs"])


def trimmed(consumer: RunningConsumer) -> Counter[str]:
    series = consumer.scrape()
    counts = {rule.value: int(total(series, "flagpost_properties_trimmed_total", rule=rule)) for rule in Rule}
    return Counter({rule: count for rule, count in counts.items() if count})


async def agree(scene: Scene, consumer: RunningConsumer, rule: Rule) -> None:
    """Publish one event that breaks a rule; checks that the request, the counter and the preview agree."""
    received, before, event = scene.pendo.received, trimmed(consumer), broken(rule)
    await asyncio.to_thread(scene.publish, [event])
    await received.until(lambda: received.recorded() == 1 + list(Rule).index(rule), 30)
    (request,) = received.of_visitor(f"v-{rule.value}")
    body, repairs = preview(event)
    assert request.body.decode() == body, rule
    assert repairs[rule.value] > 0
    assert trimmed(consumer) == before + repairs


async def test_preview_request_and_counter_agree_for_each_rule(scene: Scene) -> None:
    with scene.consume() as consumer:
        for rule in Rule:
            await agree(scene, consumer, rule)
        assert await consumer.stop() == 0
    assert scene.pendo.received.violations == []


@pytest.mark.kafka_core
async def test_reject_dead_letters_each_with_its_rule(scene: Scene) -> None:
    scene.publish(broken(rule) for rule in Rule)
    with scene.consume(mapping__properties_policy="reject") as consumer:
        letters = await asyncio.to_thread(scene.read_dead_letters, len(Rule))
        assert trimmed(consumer) == Counter()
        assert await consumer.stop() == 0
    details = {letter["key"].decode(): letter["headers"] for letter in letters}
    assert {headers["flagpost-reason"] for headers in details.values()} == {"invalid"}
    for rule in set(Rule) - {Rule.NAME_COLLISION}:  # a colliding name breaks another rule first
        assert f"rule {rule.value}: " in details[f"v-{rule.value}"]["flagpost-detail"]
    assert "rule name_characters: " in details["v-name_collision"]["flagpost-detail"]
    assert scene.pendo.received.recorded() == 0
