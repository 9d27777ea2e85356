"""docker-compose.yml on a real engine: it starts with green health checks, is scraped, delivers events, and stops.

`make compose-test` runs this on a Docker engine of its own (`image.engine`), with images that it builds under the
names that the file uses: Kafka from its jars, Prometheus from Debian's package, Flagpost from the Dockerfile. Grafana
cannot be built that way and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from compose.stack import COMPOSE, NOT_HERE, PROMETHEUS, Stack, build_images, services
from image.engine import NEEDS_ENGINE, Network, engine
from real_kafka import parts
from running import eventually

pytestmark = [
    NEEDS_ENGINE,
    pytest.mark.skipif(parts.missing() is not None, reason=f"Kafka's jars: {parts.missing()}"),
    pytest.mark.skipif(not COMPOSE.exists(), reason="no Docker Compose: make compose-test installs it"),
    pytest.mark.timeout(1800),
]

OURS = ("topics", "pendo", "consumer", "gateway", "shop")
PATIENCE_SECONDS = 120
DELIVERED = 'sum by (job) (flagpost_deliveries_total{kind="track",outcome="delivered"})'


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with engine(Network.HOST) as reaching_registries:
        build_images(reaching_registries)
    with engine(Network.APART) as apart:
        stack = Stack(apart)
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


def test_every_health_check_is_green(stack: Stack) -> None:
    health = stack.health()
    assert health == {
        ("kafka", "healthy"): 1,
        ("topics", "exited 0"): 1,
        ("pendo", "healthy"): 1,
        ("consumer", "healthy"): 2,
        ("gateway", "healthy"): 1,
        ("shop", "healthy"): 1,
        ("prometheus", "healthy"): 1,
    }
    assert services().keys() - {service for service, _ in health} == {NOT_HERE}


async def test_prometheus_scrapes_both_consumers_the_gateway_and_the_shop(stack: Stack) -> None:
    up = {"consumer": 2, "gateway": 1, "shop": 1}
    await eventually(lambda: stack.values("sum by (job) (up)") == up, PATIENCE_SECONDS, what="all are up")
    known = 'count by (job) (up{namespace="compose",release="flagpost",pod!=""})'
    assert stack.values(known) == up


async def test_the_work_is_shared_and_events_flow(stack: Stack) -> None:
    working = "count by (job) (flagpost_partitions_assigned > 0)"
    await eventually(lambda: stack.values(working) == {"consumer": 2}, PATIENCE_SECONDS, what="both work")

    def delivered() -> float:
        return stack.values(DELIVERED).get("consumer", 0)

    await eventually(delivered, PATIENCE_SECONDS, what="something is delivered")
    before = delivered()
    await eventually(lambda: delivered() > before + 50, PATIENCE_SECONDS, what="more is delivered")
    published = stack.values("flagpost_publisher_delivered_total")
    assert published["shop"] > before


async def test_prometheus_evaluates_the_charts_rules(stack: Stack) -> None:
    def health() -> set[str]:
        groups = json.loads(stack.ask(f"{PROMETHEUS}/api/v1/rules"))["data"]["groups"]
        # The groups with the long windows of the objectives are evaluated only every five minutes.
        soon = [group for group in groups if group["interval"] <= PATIENCE_SECONDS / 2]
        return {rule["health"] for group in soon for rule in group["rules"]}

    await eventually(lambda: health() == {"ok"}, PATIENCE_SECONDS, what="every rule is evaluated")


async def test_the_gateway_takes_events_from_outside(stack: Stack) -> None:
    event = {"type": "track", "visitor_id": "from-outside", "event": "Seen Outside"}
    headers = ("authorization: Bearer try-flagpost", "content-type: application/json")
    stack.ask("http://127.0.0.1:8081/v1/events", json.dumps(event), *headers)

    def came() -> bool:
        received = stack.ask("http://127.0.0.1:8000/_stand_in/received?limit=10000")
        return '"from-outside"' in received

    await eventually(came, PATIENCE_SECONDS, what="Pendo has it")


def test_flagpost_check_finds_all_well(stack: Stack) -> None:
    assert json.loads(stack.inside("consumer", "flagpost", "check", "--json"))["ok"]


def test_everything_is_accounted_for(stack: Stack) -> None:
    counted = json.loads(stack.inside("consumer", "flagpost", "reconcile", "--json"))
    assert counted["totals"]["delivered"] > 0
    assert (counted["unexplained"], counted["lost_offsets"]) == (0, 0)


def test_kafka_can_be_reached_from_outside(stack: Stack) -> None:
    assert "exists flagpost.events" in stack.outside("topics", "create", "--partitions=6", "--replication=1")


async def test_a_consumer_that_is_stopped_hands_over(stack: Stack) -> None:
    stack.compose(
        "up", "--detach", "--no-deps", "--no-build", "--pull=never", "--scale=consumer=1", "consumer"
    )
    everything = {"consumer": 6.0}
    assigned = "sum by (job) (flagpost_partitions_assigned)"
    await eventually(lambda: stack.values(assigned) == everything, PATIENCE_SECONDS, what="one has all")


def test_all_of_ours_stop_cleanly(stack: Stack) -> None:
    stack.compose("stop")
    ended = {(service, state) for service, state in stack.health() if service in OURS}
    assert ended == {(service, "exited 0") for service in OURS}
