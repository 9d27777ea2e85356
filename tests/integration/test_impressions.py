"""The real SDK's impressions, reported by publishers, compared with what they published, on a real Kafka."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from optimizely.decision.optimizely_decide_option import OptimizelyDecideOption
from optimizely.event.event_processor import BatchEventProcessor
from optimizely.helpers.enums import NotificationTypes
from optimizely.helpers.sdk_settings import OptimizelySdkSettings
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely

from flagpost_publisher import Publisher
from kafka_reading import read_topic
from optimizely_fixtures import DATAFILE, TARGETED, Nowhere, user_of
from scenes import Scene

pytestmark = pytest.mark.kafka

DISABLE_DECISION_EVENT = OptimizelyDecideOption.DISABLE_DECISION_EVENT
VISITORS = 30


class Told:
    """A client with the SDK's own event processor; counts the impressions for Optimizely, without the publisher."""

    def __init__(self) -> None:
        centre = NotificationCenter()
        self.client = Optimizely(
            json.dumps({**DATAFILE, **TARGETED}),
            notification_center=centre,
            event_processor=BatchEventProcessor(Nowhere, start_on_init=True, notification_center=centre),
            settings=OptimizelySdkSettings(odp_disabled=True),
        )
        self.impressions: Counter[str] = Counter()
        centre.add_notification_listener(NotificationTypes.LOG_EVENT, self._note)

    def _note(self, event: Any) -> None:
        for visitor in event.params["visitors"]:
            self.impressions[visitor["snapshots"][0]["decisions"][0]["metadata"]["flag_key"]] += 1


@pytest.fixture
def reports(scene: Scene) -> str:
    """Create the topic of impressions, also in the settings; returns its name."""
    topic = scene.topic.replace("events", "impressions")
    scene.kafka.create_topics(topic, partitions=1)
    scene.settings["kafka.impressions_topic"] = topic
    return topic


def known_only(_user_id: str, attributes: Mapping[str, Any]) -> str | None:
    return attributes.get("id")


def decide(scene: Scene, reports: str, told: Told) -> None:
    """Decide twice for each visitor. Every third visitor has no id, and the flag `bare` has no impressions."""
    publisher = Publisher(
        bootstrap_servers=scene.kafka.bootstrap_servers,
        topic=scene.topic,
        service="shop",
        visitor_id=known_only,
        impressions_topic=reports,
    )
    with publisher:
        publisher.attach(told.client)
        for number in range(VISITORS):
            user = user_of(told.client, f"u{number}", {"id": f"v{number}"} if number % 3 else {})
            for _ in range(2):
                user.decide_for_keys(["checkout", "banner", "held", "vip"])
                user.decide("bare", [DISABLE_DECISION_EVENT])
        told.client.close()


@pytest.mark.kafka_core
async def test_every_impression_is_published_a_duplicate_or_refused(scene: Scene, reports: str) -> None:
    told = Told()
    await asyncio.to_thread(decide, scene, reports, told)
    code, document = await asyncio.to_thread(scene.reconcile)

    found = document["impressions"]
    refused, known = VISITORS // 3, VISITORS - VISITORS // 3
    assert told.impressions == dict.fromkeys(("checkout", "banner", "held", "vip"), 2 * VISITORS)
    assert found["rows"] == [
        {
            "flag_key": flag,
            "rule_type": rule_type,
            "impressions": told.impressions[flag],
            "published": known,
            "duplicates": known,
            "refused": 2 * refused,
            "failed": 0,
            "difference": 0,
        }
        for flag, rule_type in (
            ("banner", "delivery"),
            ("checkout", "experiment"),
            ("held", "holdout"),
            ("vip", "delivery"),
        )
    ]
    assert code == 0
    # The expected split is the datafile's, as the publisher reported it.
    ratio = next(each for each in document["sample_ratio"] if each["flag_key"] == "checkout")
    assert (ratio["expected_from"], ratio["skewed"]) == ("datafile", False)
    assert ratio["expected"] == {"control": known / 2, "treatment": known / 2}
    assert (found["missing_reports"], found["uncounted"], found["damaged"], found["not_reporting"]) == (
        0,
        0,
        0,
        [],
    )


async def test_decisions_that_were_not_published_are_the_difference(scene: Scene, reports: str) -> None:
    told = Told()
    publisher = Publisher(
        bootstrap_servers=scene.kafka.bootstrap_servers,
        topic=scene.topic,
        service="shop",
        impressions_topic=reports,
    )

    def lose_some() -> None:
        """Decide once for each visitor; the publisher gets every impression, but not a third of the decisions."""
        with publisher:
            publisher.attach(told.client)
            on_decision = told.client.notification_center.notification_listeners[NotificationTypes.DECISION]
            for number in range(VISITORS):
                kept = on_decision[:]
                if number % 3 == 0:
                    on_decision.clear()
                user_of(told.client, f"u{number}").decide("checkout")
                on_decision[:] = kept
            told.client.close()

    await asyncio.to_thread(lose_some)
    _, document = await asyncio.to_thread(scene.reconcile)
    (row,) = document["impressions"]["rows"]
    assert (row["impressions"], row["published"], row["difference"]) == (
        VISITORS,
        VISITORS * 2 // 3,
        VISITORS // 3,
    )


async def test_without_a_topic_of_impressions_events_are_published_and_nothing_waits(scene: Scene) -> None:
    told = Told()
    missing = scene.topic.replace("events", "nowhere")
    await asyncio.to_thread(decide, scene, missing, told)
    records = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    assert len(records) == (VISITORS - VISITORS // 3) * 5
    code, document = await asyncio.to_thread(scene.reconcile)
    assert code == 0
    assert "impressions" not in document
    scene.settings["kafka.impressions_topic"] = missing
    _, document = await asyncio.to_thread(scene.reconcile)
    assert (document["impressions"]["reports"], document["impressions"]["rows"]) == (0, [])
