"""A running consumer's metrics of experiments: visitors are compared with the traffic allocation that a publisher
reports, or only counted if the topic of these reports does not exist.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable

import pytest
from confluent_kafka import Producer

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.core.splits.sample_ratio import SKEWED_FROM
from flagpost_publisher import Publisher
from optimizely_fixtures import optimizely_client, user_of
from running import RunningConsumer, eventually
from scenes import Scene

pytestmark = [pytest.mark.kafka]

VISITORS = 60


@pytest.fixture
def reports(scene: Scene) -> str:
    """Create the topic of impressions; returns its name."""
    topic = scene.topic.replace("events", "impressions")
    scene.kafka.create_topics(topic, partitions=2)
    return topic


def decide(scene: Scene, reports: str) -> Counter[str | None]:
    """Publish the real SDK's decisions, and the split when the publisher closes; returns visitors by variation."""
    shown: Counter[str | None] = Counter()
    client = optimizely_client()
    with Publisher(
        bootstrap_servers=scene.kafka.bootstrap_servers, topic=scene.topic, impressions_topic=reports
    ) as publisher:
        publisher.attach(client)
        for number in range(VISITORS):
            shown[user_of(client, f"v{number}").decide("checkout").variation_key] += 1
    return shown


def series(consumer: RunningConsumer, name: str, **labels: str | None) -> float:
    """The value of a series of the experiment; 0 if it is not exported."""
    found = {"flag": "checkout", "rule": "checkout_test", **labels}
    return consumer.scrape().get((name, tuple(sorted(found.items()))), 0.0)  # type: ignore[arg-type]


def told(
    consumer: RunningConsumer, variations: Iterable[str | None]
) -> dict[str | None, tuple[float, float]]:
    """The number of visitors and the expected share of each variation."""
    return {
        each: (
            series(consumer, "flagpost_experiment_visitors", variation=each),
            series(consumer, "flagpost_experiment_expected_share", variation=each),
        )
        for each in variations
    }


def evidence(consumer: RunningConsumer) -> float:
    return series(consumer, "flagpost_sample_ratio_evidence")


async def test_visitors_are_compared_with_the_split_that_their_publisher_reports(
    scene: Scene, reports: str
) -> None:
    shown = await asyncio.to_thread(decide, scene, reports)
    with scene.consume(metrics__flags=["checkout"], kafka__impressions_topic=reports) as consumer:
        expected = {variation: (float(count), 0.5) for variation, count in shown.items()}
        await eventually(lambda: told(consumer, shown) == expected)
        assert evidence(consumer) < SKEWED_FROM

        # Decisions that another service published skew the ratio; then a later datafile says that it is intended.
        scene.publish(
            [
                decision(f"x{n}", variation="treatment", rule_key="checkout_test", rule_type="experiment")
                for n in range(60)
            ]
        )
        await eventually(lambda: evidence(consumer) >= SKEWED_FROM)
        producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers})
        split = {
            "flag_key": "checkout",
            "rule_key": "checkout_test",
            "shares": {"control": 1, "treatment": 9},
        }
        producer.produce(reports, b"none of ours")
        producer.produce(reports, json.dumps({"until": 2**42, "splits": [split]}))
        producer.flush(stretched(10))
        await eventually(lambda: evidence(consumer) < SKEWED_FROM)
        assert await consumer.stop() == 0


async def test_without_the_topic_visitors_are_counted_and_everything_else_goes_on(scene: Scene) -> None:
    scene.publish([decision(f"v{n}", rule_key="ab", rule_type="experiment") for n in range(5)])
    with scene.consume(metrics__flags=["checkout"], kafka__impressions_topic="nowhere") as consumer:
        await consumer.caught_up(scene.partitions)
        labels = {"flag": "checkout", "rule": "ab"}
        assert consumer.value("flagpost_experiment_visitors", variation="a", **labels) == 5
        assert "flagpost_sample_ratio_evidence{" not in consumer.get("/metrics")[1].decode()
        assert await consumer.stop() == 0
