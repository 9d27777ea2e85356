"""Three counts of an experiment, all explained: what Optimizely received, what was published, what Pendo accepted.

The SDK's event batches go over HTTP to an endpoint that loses one in fifty after it has accepted them; its export is
what `flagpost reconcile --optimizely` reads. Six services decide: one that works, one that never attached a
publisher, and four whose publishers cannot write all their decisions to Kafka. The expected cause of each missing
visitor is computed from the services' visitors, the events topic and what the endpoint lost, never from Flagpost.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from optimizely.optimizely import Optimizely

from flagpost_publisher import Publisher
from flagpost_schemas import DecisionEvent, Decoder
from kafka_reading import read_topic
from optimizely_endpoint import Exposure, OptimizelyEndpoint
from optimizely_fixtures import DATAFILE, TARGETED, holdout, user_of, variation
from real_kafka.broker import USER, KafkaBroker
from scenes import Scene

SEED = 20_261_129
LOSES = 0.02
BATCH = 4
VISITORS = 400
FEW = 25
DENIED, REFUSED_BY_PENDO = 7, 11
"""Of the shop's visitors, every DENIED-th denies consent, and Pendo refuses every REFUSED_BY_PENDO-th."""
CLOSE_SECONDS = 300
"""The most that a publisher may take to close, of which its last report may take a fifth. Long, for slow machines."""
FILTERED_EXPERIMENT = "210"
"""The rollout of the flag `legacy`, which a setting leaves out."""


def datafile(*, sends_all: bool) -> dict[str, Any]:
    """A datafile with an experiment, rollouts, a targeted delivery, a flag without rules, a local holdout, and a
    holdout for a fifth of all visitors.
    """
    nobody = variation("901", "ho_off", on=False)
    everywhere = {
        **holdout("900", "everywhere", 2_000),
        "variations": [nobody],
        "trafficAllocation": [{"entityId": nobody["id"], "endOfRange": 2_000}],
    }
    return {**DATAFILE, **TARGETED, "sendFlagDecisions": sends_all, "holdouts": [everywhere]}


@dataclass(frozen=True)
class Service:
    """A service that decides. `publishes` has its publisher's options; None: it never attached a publisher."""

    name: str
    visitors: int
    publishes: Mapping[str, Any] | None = field(default_factory=dict)
    cause: tuple[str, str | None] = ("delivered", None)
    """The cause and the reason of its visitors that are not on the topic."""

    def people(self) -> Iterator[str]:
        for number in range(self.visitors):
            yield f"{self.name}-{number}"


SHOP = Service("shop", VISITORS)
SILENT = Service("mobile", FEW, publishes=None, cause=("never_published", None))
FULL = Service("checkout", FEW, {"queue_max_messages": 3}, ("refused", "queue_full"))
GUESTS = Service("guests", FEW, {"visitor_id": "customer_number"}, ("refused", "no_visitor_id"))
STRICT = Service("strict", FEW, {"max_event_bytes": 60}, ("refused", "too_large"))
KIOSK = Service("kiosk", FEW, {}, ("failed", "no right"))
SERVICES = (SHOP, SILENT, FULL, GUESTS, STRICT, KIOSK)


@pytest.fixture
def reports(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> str:
    """The topic of impressions. The kiosk's user may write to it, but not to the events topic."""
    monkeypatch.setattr("flagpost_publisher.reporting.LAST_SECONDS", CLOSE_SECONDS / 5)
    topic = scene.topic.replace("events", "impressions")
    scene.kafka.create_topics(topic, partitions=1)
    scene.settings["kafka.impressions_topic"] = topic
    scene.kafka.allow("topic", topic, "write", "describe")
    scene.kafka.allow("topic", scene.topic, "describe")
    return topic


def connection(service: Service, kafka: KafkaBroker) -> dict[str, Any]:
    """Options that connect a service's publisher. The kiosk's user lacks a right; its events time out in a second."""
    if service is not KIOSK:
        return {"bootstrap_servers": kafka.bootstrap_servers}
    properties = {**kafka.user_properties, "message.timeout.ms": 1_000}
    return {"bootstrap_servers": kafka.users_bootstrap_servers, "properties": properties}


def decide(service: Service, client: Optimizely, scene: Scene, reports: str) -> None:
    """Decide every flag once for each visitor of the service."""
    publisher = None
    if service.publishes is not None:
        publisher = Publisher(
            **connection(service, scene.kafka),
            **service.publishes,
            topic=scene.topic,
            service=service.name,
            impressions_topic=reports,
            consent=lambda user, _: {"analytics": not is_denied(user)},
        )
        assert publisher.attach(client) != -1
    for visitor in service.people():
        user_of(client, visitor).decide_all()
    client.close()
    if publisher is not None:
        publisher.close(CLOSE_SECONDS)


def number_of(visitor: str) -> int:
    return int(visitor.partition("-")[2])


def is_denied(visitor: str) -> bool:
    return visitor.startswith("shop-") and number_of(visitor) % DENIED == 0


def is_refused_by_pendo(visitor: str) -> bool:
    return visitor.startswith("shop-") and number_of(visitor) % REFUSED_BY_PENDO == 0


def on_topic(scene: Scene) -> set[Exposure]:
    """The published decisions that the SDK reported to Optimizely too, with ids as the SDK reports them."""
    decode = Decoder().decode
    found = set()
    for record in read_topic(scene.kafka.bootstrap_servers, scene.topic):
        event = decode(record.value or b"")
        assert isinstance(event, DecisionEvent)
        if event.decision_event_dispatched:
            told = (event.variation_id or "") if (event.variation_id or "").isdigit() else ""
            found.add((event.experiment_id or "", told, event.visitor_id))
    return found


def expected(
    endpoint: OptimizelyEndpoint, published: set[Exposure]
) -> dict[Exposure, tuple[str, str | None]]:
    """Each exposure on which Optimizely and Flagpost differ, with the cause and the reason."""
    kept = {each.exposure: each.row["is_holdback"] for each in endpoint.kept}
    found: dict[Exposure, tuple[str, str | None]] = {}
    for exposure, is_held_back in kept.items():
        cause = cause_of(exposure, is_published=exposure in published, is_held_back=is_held_back)
        if cause[0] != "delivered":
            found[exposure] = cause
    for exposure in published - kept.keys():
        (how, reason) = cause_of(exposure, is_published=True, is_held_back=False)
        found[exposure] = "only_flagpost", "ok" if how == "delivered" else reason
    return found


def cause_of(exposure: Exposure, *, is_published: bool, is_held_back: bool) -> tuple[str, str | None]:
    experiment, _, visitor = exposure
    service = next(each for each in SERVICES if visitor.startswith(f"{each.name}-"))
    if not is_published:
        held_out = is_held_back and service is SILENT
        return ("held_out", None) if held_out else service.cause
    if is_denied(visitor):
        return "consent", "no_consent"
    if experiment == FILTERED_EXPERIMENT:
        return "filtered", "flag_filtered"
    return ("rejected", "rejected") if is_refused_by_pendo(visitor) else ("delivered", None)


NO_RIGHT = {"msg_timed_out", "topic_authorization_failed"}
"""The Kafka client's error for an event that waited for the right until it timed out: either of the two."""


def told(document: Mapping[str, Any]) -> dict[Exposure, tuple[str, str | None]]:
    """The differences in reconcile's document, each with its cause and its reason."""
    return {
        (each["experiment_id"], each["variation_id"], each["visitor_id"]): (
            each["cause"],
            "no right" if each["reason"] in NO_RIGHT else each["reason"],
        )
        for each in document["optimizely"]["differences"]
    }


def by_cause(causes: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for cause, _ in causes:
        counts[cause] += 1
    return dict(counts)


@pytest.mark.parametrize("sends_all", [True, pytest.param(False, marks=pytest.mark.thorough)])
async def test_everybody_who_is_missing_is_named_with_the_cause(
    sends_all: bool, scene: Scene, reports: str, tmp_path: Path
) -> None:
    for visitor in filter(is_refused_by_pendo, SHOP.people()):
        scene.pendo.faults.visitor(visitor, afterwards=422)
    async with OptimizelyEndpoint(LOSES, SEED) as endpoint:
        for service in SERVICES:
            client = endpoint.client(datafile(sends_all=sends_all), BATCH)
            await asyncio.to_thread(decide, service, client, scene, reports)
    assert endpoint.lost_batches > 1
    with scene.consume(delivery__visitor_interval_seconds=1.0, decisions__flags_deny=["legacy"]) as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    scene.settings["decisions.flags_deny"] = ["legacy"]

    export = endpoint.write_export(tmp_path / "decisions.parquet")
    # The window is an hour wider on either side: what is decided within a minute of its ends is left out.
    hour = timedelta(hours=1)
    window = (
        "--since",
        (datetime.now(UTC) - hour).isoformat(),
        "--until",
        (datetime.now(UTC) + hour).isoformat(),
    )
    command = ("reconcile", *window, "--optimizely", str(export))
    done = await asyncio.to_thread(scene.flagpost, *command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    missing = expected(endpoint, await asyncio.to_thread(on_topic, scene))

    assert told(document) == missing
    found = by_cause(missing.values())
    wanted = {"consent", "rejected", "never_published", "held_out", "refused", "failed", "only_flagpost"}
    assert found.keys() == wanted | ({"filtered"} if sends_all else set())
    optimizely = document["optimizely"]
    assert (optimizely["left_out"], optimizely["without_ids"], optimizely["not_in_export"]) == (0, 0, [])
    # By experiment and variation the numbers add up to what the endpoint kept.
    kept = {each.exposure for each in endpoint.kept}
    assert sum(row["decided"] for row in optimizely["rows"]) == len(kept)
    lost = sum(
        count
        for row in optimizely["rows"]
        for cause, count in row["by_cause"].items()
        if cause != "only_flagpost"
    )
    assert sum(row["delivered"] for row in optimizely["rows"]) + lost == len(kept)
    # The service without a publisher is not named itself: reconcile names the SDK that reported the visitors to
    # Optimizely, and the services that do publish.
    silent = [each for each in optimizely["differences"] if each["cause"] == "never_published"]
    assert {each["client"].partition(" ")[0] for each in silent} == {"python-sdk"}
    assert not [name for each in silent for name in each["services"] if name.startswith("mobile")]
    refused = {tuple(each["services"]) for each in optimizely["differences"] if each["cause"] == "refused"}
    assert refused == {("checkout",), ("guests",), ("strict",)}

    table = await asyncio.to_thread(scene.flagpost, *command, "--csv")
    lines = list(csv.DictReader(io.StringIO(table.stdout)))
    assert by_cause((line["cause"], None) for line in lines) == found
    text = await asyncio.to_thread(scene.flagpost, *command)
    assert "refused: " in text.stdout
    assert any(f"by kiosk: {reason}" in " ".join(text.stdout.split()) for reason in NO_RIGHT)


def test_the_kiosk_connects_as_the_user_who_lacks_the_right(scene: Scene) -> None:
    """That user has only the rights that the test grants on its own topics."""
    assert connection(KIOSK, scene.kafka)["properties"]["sasl.username"] == USER
