"""Three ways to count an experiment: what Optimizely received, what was published, what Pendo took; all explained.

The SDK's event batches go over HTTP to an endpoint that loses one in fifty after it has taken them; its export is
what `flagpost reconcile --optimizely` reads. Six services decide: one that works, one that never attached a
publisher, and four whose publishers cannot take all their decisions to Kafka. Whom each cause must name is told by
the services' visitors, by what lies on the events topic, and by what the endpoint lost: never by Flagpost.
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
"""Every so many visitors of the shop deny their consent, or are refused by Pendo."""
CLOSE_SECONDS = 300
"""The most that a publisher may take to end, and its last report a fifth of it: a machine may be slow."""
FILTERED_EXPERIMENT = "210"
"""The rollout of the flag `legacy`, which is left out by a setting."""


def datafile(*, sends_all: bool) -> dict[str, Any]:
    """An experiment, rollouts, a targeted delivery, no rule, a local holdout, and one for a fifth of all."""
    nobody = variation("901", "ho_off", on=False)
    everywhere = {
        **holdout("900", "everywhere", 2_000),
        "variations": [nobody],
        "trafficAllocation": [{"entityId": nobody["id"], "endOfRange": 2_000}],
    }
    return {**DATAFILE, **TARGETED, "sendFlagDecisions": sends_all, "holdouts": [everywhere]}


@dataclass(frozen=True)
class Service:
    """One that decides, and how it publishes; None: it never attached a publisher."""

    name: str
    visitors: int
    publishes: Mapping[str, Any] | None = field(default_factory=dict)
    cause: tuple[str, str | None] = ("delivered", None)
    """Of its visitors, unless they are on the topic."""

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
    """The topic of impressions, to which the kiosk's user may write; to the events topic it may not."""
    monkeypatch.setattr("flagpost_publisher.reporting.LAST_SECONDS", CLOSE_SECONDS / 5)
    topic = scene.topic.replace("events", "impressions")
    scene.kafka.create_topics(topic, partitions=1)
    scene.settings["kafka.impressions_topic"] = topic
    scene.kafka.allow("topic", topic, "write", "describe")
    scene.kafka.allow("topic", scene.topic, "describe")
    return topic


def connection(service: Service, kafka: KafkaBroker) -> dict[str, Any]:
    """The kiosk is the user who lacks a right; it gives up after a second."""
    if service is not KIOSK:
        return {"bootstrap_servers": kafka.bootstrap_servers}
    properties = {**kafka.user_properties, "message.timeout.ms": 1_000}
    return {"bootstrap_servers": kafka.users_bootstrap_servers, "properties": properties}


def decide(service: Service, client: Optimizely, scene: Scene, reports: str) -> None:
    """Each visitor is decided for once, for every flag."""
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
    """What was published, of which Optimizely was told; ids as the SDK tells them."""
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
    """Everybody who is in one and not in the other, with the cause and the reason."""
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
"""What Kafka's client says of an event that waited for the right until its time was over: either."""


def told(document: Mapping[str, Any]) -> dict[Exposure, tuple[str, str | None]]:
    """What reconcile says."""
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
    # Who never attached is told by what it is not: the services that do publish, and the SDK that told Optimizely.
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


def test_the_user_who_lacks_the_right_is_the_kiosks(scene: Scene) -> None:
    """Its rights are those of the test's own topics."""
    assert connection(KIOSK, scene.kafka)["properties"]["sasl.username"] == USER
