"""A real Prometheus over running consumers, gateway and publishers: every query of every dashboard has data, the
rules work, and the alert for a wrong key fires and resolves.

The short form runs with all tests; `make observe` (OBSERVE=long) also freezes Kafka, and prints what it saw.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from observability.asked import Asked, of_dashboards, of_rules, recorded
from observability.load import PENDO, throttle
from observability.metric_checks import OF_THE_TARGET
from observability.programs_metrics import ONLY_WITH_TRAFFIC
from observability.prometheus_parts import Programs
from observability.prometheus_server import RunningPrometheus
from observability.promql import concrete
from observability.stage import Stage
from real_kafka.broker import OwnBroker

LONG = os.environ.get("OBSERVE") == "long"
"""Whether to run the long form: `make observe`."""

WRONG_KEY = "FlagpostPendoUnauthorized"

UNEXPLAINED = ("overview", "Unexplained")
ZERO: Mapping[tuple[str, str], str] = {
    UNEXPLAINED: "anything else is a defect; the rule's own tests show how it would be told",
    ("kafka", "Partitions stalled"): "it takes a ledger topic with too few partitions",
    ("overview", "Partitions without a consumer"): "for seconds, while they change hands",
    ("kafka", "Partitions without a consumer"): "the same",
    (
        "publishers",
        "Files of keys that cannot be used: {{pod}} {{setting}}",
    ): "the gateway's own tests break them",
    ("kafka", "Topics replaced"): "the tests of topics made anew count them",
    ("kafka", "Waiting for the registry"): "it takes a schema registry",
    ("delivery", "Records quarantined: quarantined"): "anything else is a defect",
}
"""Panels that show 0, and why."""
ZERO_IN_SHORT = {("publishers", "Answers 5xx"), ("publishers", "Kafka's answers: failed")}
"""Panels that show 0 in the short form, which does not freeze Kafka."""
FLEETING = {
    ("kafka", "Lag: {{release}} sendable"),
    ("overview", "Backlog and lag: sendable"),
    ("kafka", "Settlements on their way"),
    ("kafka", "Settlements not acknowledged: {{pod}}"),
    ("publishers", "Records on their way to Kafka: {{pod}}"),
    ("publishers", "Requests in flight: {{pod}}"),
    ("publishers", "Bytes: bodies in memory"),
    ("publishers", "Bytes: on their way"),
    ("kafka", "Seen again: {{pod}}"),
    ("kafka", "Stalled partitions by reason: {{reason}}"),
}
"""Panels of values that last a few milliseconds, or occur before a new process's first scrape: Prometheus may see
them, or not."""


@pytest.fixture
async def prometheus(prometheus_programs: Programs, tmp_path: Path) -> AsyncIterator[RunningPrometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    async with RunningPrometheus(prometheus_programs.prometheus, folder) as running:
        yield running


@pytest.fixture
async def stage(
    kafka_broker: OwnBroker, prometheus: RunningPrometheus, fresh_name: Callable[[str], str]
) -> AsyncIterator[Stage]:
    async with PendoStandIn(PENDO) as pendo:
        running = Stage(kafka_broker, pendo, prometheus, fresh_name("observed"))
        try:
            await running.begin()
            yield running
        finally:
            await running.end()


async def test_every_query_has_data_and_the_alert_for_a_wrong_key_fires_and_resolves(stage: Stage) -> None:
    await hurt_visitors(stage)
    await move_partitions(stage)
    await hurt_pendo(stage)
    await lose_offsets(stage)
    if LONG:
        await freeze_kafka(stage)
    await mistake_the_key(stage)
    await check_rules(stage.prometheus)
    await check_queries(stage.prometheus)
    await check_labels(stage.prometheus)


async def hurt_visitors(stage: Stage) -> None:
    """Cause events on wrong partitions, a hot visitor, 429s and rejections, and replay the rejected events."""
    await stage.odd_records()
    throttle(stage.pendo.faults)
    await stage.until('flagpost_pendo_state{state="throttled"} == 1')
    await stage.until('sum(flagpost_deliveries_total{reason="visitor_backlog"}) > 0')
    await stage.until('sum(flagpost_deliveries_total{reason="rejected"}) > 0')
    assert await stage.replay("rejected") > 0


async def move_partitions(stage: Stage) -> None:
    """Start and stop a consumer; kill another one, damage the ledger, and start it again."""
    await stage.start("consumer-2")
    await stage.stop("consumer-2")
    await stage.kill("consumer-1")
    await stage.damage_ledger()
    await stage.start("consumer-1")
    await stage.until("sum(flagpost_ledger_damaged_total) > 0")


async def hurt_pendo(stage: Stage) -> None:
    """Make Pendo fail for a while."""
    stage.pendo.faults.outage(503, Endpoint.TRACK)
    await stage.until('flagpost_pendo_state{state="unreachable"} == 1')
    stage.pendo.faults.restore(Endpoint.TRACK)
    await stage.until('sum(flagpost_pendo_state{state="ok",endpoint="track"}) == 2')


async def lose_offsets(stage: Stage) -> None:
    """Have Kafka delete events that were not read."""
    await stage.stop("consumer-0")
    await stage.stop("consumer-1")
    await stage.delete_unread()
    await stage.start("consumer-0")
    await stage.start("consumer-1")
    await stage.until("sum(flagpost_offsets_lost_total) > 0")


async def freeze_kafka(stage: Stage) -> None:
    """Freeze Kafka until the gateway answers 503."""
    stage.broker.freeze()
    try:
        await stage.call_gateway(0)
        await stage.until('sum(flagpost_gateway_requests_total{status="503"}) > 0')
    finally:
        stage.broker.thaw()
    await stage.until("flagpost_gateway_kafka_up == 1")


async def mistake_the_key(stage: Stage) -> None:
    """Change the key at Pendo until the alert fires, and then change it back."""
    right = stage.pendo.keys
    stage.pendo.keys = replace(right, track_secret="another")
    await stage.until(f'ALERTS{{alertname="{WRONG_KEY}",alertstate="firing"}}')
    (alert,) = await stage.prometheus.firing(WRONG_KEY)
    assert alert["labels"]["endpoint"] == "track"
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "Pendo refuses the key of flagpost (track)"
    stage.pendo.keys = right
    await stage.until(f'absent(ALERTS{{alertname="{WRONG_KEY}"}})')
    assert not await stage.prometheus.firing(WRONG_KEY)


async def check_rules(prometheus: RunningPrometheus) -> None:
    """Every rule is evaluated without an error, and every recorded series has data."""
    health = await prometheus.rule_health()
    assert {rule.what for rule in of_rules()} == health.keys()
    assert set(health.values()) == {"ok"}
    for name in recorded():
        # The series of CronJobs need kube-state-metrics; the rules' own tests cover them.
        assert name.startswith("cronjob:") or await prometheus.seen(name), name


async def check_queries(prometheus: RunningPrometheus) -> None:
    """Every query of every dashboard has returned numbers; all are 0 only where that is expected."""
    numbers = {asked: await numbers_of(asked, prometheus) for asked in of_dashboards()}
    if LONG:
        for asked, found in numbers.items():
            print(f"{asked.place}, {asked.what}: {span(found)}")  # noqa: T201 - what the long form is for
    assert not [asked for asked, found in numbers.items() if not found]
    zero = {place_of(asked) for asked, found in numbers.items() if not any(found)}
    assert UNEXPLAINED in zero
    assert zero <= ZERO.keys() | FLEETING | (set() if LONG else ZERO_IN_SHORT)


async def check_labels(prometheus: RunningPrometheus) -> None:
    """Series that exist only with traffic have the labels that docs/metrics.md lists."""
    for name, labels in ONLY_WITH_TRAFFIC.items():
        found = await prometheus.now(f'{{__name__=~"{name}(_total)?"}}')
        assert found, name
        for answer in found:
            assert answer.labels.keys() - OF_THE_TARGET - {"__name__"} == set(labels)


async def numbers_of(asked: Asked, prometheus: RunningPrometheus) -> list[float]:
    """The numbers that a query has returned since the start, for a dashboard that shows that time."""
    since = f"{int(time() - prometheus.began_at) + 1}s"
    answers = await prometheus.seen(concrete(asked.expr, __rate_interval="10s", __range=since))
    return [number for answer in answers for number in answer.values]


def place_of(asked: Asked) -> tuple[str, str]:
    """The dashboard, and the panel or annotation in it."""
    return asked.place.removeprefix("dashboards/"), asked.what


def span(found: list[float]) -> str:
    """The least and the greatest number, as a text."""
    return f"{min(found):g} to {max(found):g}" if found else "nothing"
