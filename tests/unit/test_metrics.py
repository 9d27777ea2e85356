"""The metrics: every name of docs/contract.md#metrics exists from the start, with its labels."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import generate_latest

from engine_world import START_MS, decision, ready, record
from flagpost_consumer.adapters.kafka.intake_handler import Lag
from flagpost_consumer.adapters.metrics import MAX_VARIATIONS, Metrics
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.core.policy import (
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    Patterns,
    Policy,
    SelectSettings,
)
from flagpost_consumer.core.records import EventFacts
from flagpost_schemas import Source

NAMES = [
    "flagpost_records_consumed_total",
    "flagpost_redeliveries_total",
    "flagpost_deliveries_planned_total",
    "flagpost_deliveries_total",
    "flagpost_deliveries_returned_total",
    "flagpost_deliveries_pending",
    "flagpost_backlog_sendable",
    "flagpost_backlog_paced",
    "flagpost_pendo_requests_total",
    "flagpost_pendo_request_seconds_bucket",
    "flagpost_pendo_in_flight",
    "flagpost_pendo_state",
    "flagpost_oldest_attempt_seconds",
    "flagpost_event_age_seconds_bucket",
    "flagpost_oldest_pending_timestamp_seconds",
    "flagpost_partitions_assigned",
    "flagpost_rebalances_total",
    "flagpost_offsets_lost_total",
    "flagpost_topic_replaced_total",
    "flagpost_dedupe_entries",
    "flagpost_dedupe_evicted_early_total",
    "flagpost_dedupe_late_total",
    "flagpost_properties_trimmed_total",
    "flagpost_mispartitioned_total",
    "flagpost_pending_bytes",
    "flagpost_stalled",
    "flagpost_ledger_unacknowledged",
    "flagpost_quarantined_total",
    "flagpost_registry_waiting",
    "flagpost_ledger_restore_seconds",
    "flagpost_loop_lag_seconds",
    "flagpost_build_info",
]


def scrape(**lag: Lag) -> str:
    """A page of metrics; the lag of partition 0 is given as `p0=`."""
    engine = Engine(Policy(), lambda: 0.5)
    metrics = Metrics(engine, lambda: Instant(time.monotonic(), time.time_ns() // 1_000_000), topic="t")
    metrics.observed.lag = {int(name.removeprefix("p")): each for name, each in lag.items()}
    return generate_latest(metrics.registry).decode()


def test_every_series_exists_from_the_start() -> None:
    text = scrape()
    present = set(re.findall(r"^([a-z_]+)[{ ]", text, re.MULTILINE))
    assert set(NAMES) <= present
    for family in ("flagpost_decisions", "flagpost_consumer_lag"):
        assert f"# TYPE {family}" in text, "labelled by what only traffic brings"
    for series in (
        'flagpost_deliveries_total{kind="track",outcome="dead_lettered",reason="expired"} 0.0',
        'flagpost_deliveries_total{kind="unknown",outcome="dead_lettered",reason="undecodable"} 0.0',
        'flagpost_deliveries_total{kind="unknown",outcome="dead_lettered",reason="invalid"} 0.0',
        'flagpost_pendo_state{endpoint="track",state="ok"} 1.0',
        'flagpost_pendo_state{endpoint="metadata",state="unauthorized"} 0.0',
        'flagpost_pendo_requests_total{endpoint="track",status="timeout"} 0.0',
        'flagpost_properties_trimmed_total{rule="name_reserved"} 0.0',
        'flagpost_rebalances_total{kind="lost"} 0.0',
        'flagpost_pendo_budget_per_minute{endpoint="track"} +Inf',
        'flagpost_pendo_budget_per_minute{endpoint="metadata"} 0.0',
        'flagpost_hottest_lanes{rank="5"} 0.0',
    ):
        assert series in text


ADDED = {
    "flagpost_experiment_expected_share",
    "flagpost_experiment_visitors",
    "flagpost_sample_ratio_evidence",
    "flagpost_ledger_damaged",
    "flagpost_hottest_lanes",
    "flagpost_limit",
    "flagpost_pending_ratio",
    "flagpost_pendo_budget_per_minute",
    "flagpost_topic_partitions",
}
"""The metrics that are not in `NAMES`; docs/metrics.md says what they are for."""


def test_every_metric_is_on_the_page_of_metrics() -> None:
    families = set(re.findall(r"^# TYPE (flagpost_[a-z_]+)", scrape(), re.MULTILINE))
    families = {name.removesuffix("_created") for name in families}
    known = set(NAMES) | {"flagpost_decisions_total", "flagpost_consumer_lag"}
    bases = {re.sub("_(total|bucket)$", "", name) for name in known}
    assert {re.sub("_(total|bucket)$", "", name) for name in families} == bases | ADDED
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert all(f"`{base}" in page for base in bases)


def test_the_oldest_pending_is_now_when_nothing_is_pending() -> None:
    (line,) = [line for line in scrape().splitlines() if line.startswith("flagpost_oldest_pending")]
    assert abs(float(line.split()[1]) - time.time()) < 60


def test_the_budget_is_the_share_of_the_partitions() -> None:
    engine = Engine(Policy(), lambda: 0.5)
    metrics = Metrics(engine, lambda: Instant(0.0, 0), topic="t")
    engine.assign([0, 1], 8, Instant(0.0, 0))
    assert (
        'flagpost_pendo_budget_per_minute{endpoint="metadata"} 250.0'
        in generate_latest(metrics.registry).decode()
    )


def test_limits_are_those_of_the_settings() -> None:
    policy = Policy(
        delivery=DeliverySettings(max_pending=4, max_age_seconds=3600.0),
        dedupe=DedupeSettings(max_entries=7),
        limits=EndpointLimits(max_connections=3),
    )
    engine = Engine(policy, lambda: 0.5)
    metrics = Metrics(engine, lambda: Instant(0.0, START_MS), topic="t")
    ready(engine, [0], 8, Instant(0.0, START_MS), policy)
    engine.receive(
        [record(decision(f"v{n}", "checkout"), offset=n) for n in range(3)], Instant(0.0, START_MS)
    )
    page = generate_latest(metrics.registry).decode()
    for line in (
        'flagpost_limit{setting="delivery.max_pending"} 4.0',
        'flagpost_limit{setting="delivery.max_age_seconds"} 3600.0',
        'flagpost_limit{setting="dedupe.max_entries"} 7.0',
        'flagpost_limit{setting="pendo.max_connections"} 3.0',
        "flagpost_topic_partitions 8.0",
        "flagpost_pending_ratio 0.75",
    ):
        assert f"{line}\n" in page


def test_the_process_reports_what_it_uses() -> None:
    assert "process_resident_memory_bytes" in scrape()


def count_decisions(metrics: Metrics, flag: str, variations: Iterable[str | None]) -> None:
    for variation in variations:
        metrics._count_decision(EventFacts(flag_key=flag, variation_key=variation), Outcome.DELIVERED)


def variations_of(metrics: Metrics, flag: str) -> dict[str, float]:
    return {
        sample.labels["variation"]: sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == "flagpost_decisions_total" and sample.labels["flag"] == flag
    }


def test_a_flag_has_a_hundred_variations_at_most_then_other() -> None:
    """Before the fix, each published name was a series for as long as the process ran."""
    metrics = Metrics(
        Engine(Policy(), lambda: 0.5), lambda: Instant(0.0, 0), topic="t", flags=["checkout", "search"]
    )
    count_decisions(metrics, "search", ["v" * 101, None, "on"])
    count_decisions(metrics, "checkout", [f"v{number}" for number in range(10_000)])
    count_decisions(metrics, "checkout", ["v99", "v100"])
    count_decisions(metrics, "unlisted", ["on"])
    checkout = variations_of(metrics, "checkout")
    assert len(checkout) == MAX_VARIATIONS + 1
    assert (checkout["v0"], checkout["v99"], checkout["other"]) == (1, 2, 9_901)
    assert variations_of(metrics, "search") == {"other": 1, "": 1, "on": 1}
    assert variations_of(metrics, "unlisted") == {}


def experiment_series(metrics: Metrics) -> dict[str, float]:
    """The series of experiments, by name and labels."""
    return {
        f"{sample.name} {' '.join(sample.labels.values())}": sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name.startswith(("flagpost_experiment", "flagpost_sample_ratio"))
    }


def test_visitors_of_experiments_and_the_evidence_of_their_split_are_metrics() -> None:
    policy = Policy(select=SelectSettings(environments=Patterns(deny=["staging"])))
    engine = Engine(policy, lambda: 0.5)
    ready(engine, [0], 8, Instant(0.0, START_MS), policy)
    metrics = Metrics(
        engine,
        lambda: Instant(0.0, 0),
        topic="t",
        flags=["checkout", "search"],
        splits={"checkout": {"a": 50, "b": 50}},
    )
    assert experiment_series(metrics) == {}
    arrivals = [("v1", "a", 0), ("v1", "b", 0), ("v2", "a", 0), ("v3", "b", 0), ("another's", "a", 7)]
    metrics.received(
        record(decision(visitor, variation=variation, rule_type="experiment"), partition=partition)
        for visitor, variation, partition in arrivals
    )
    elsewhere = decision("v4", source=Source(environment="staging"), rule_type="experiment")
    metrics.received([record(elsewhere), record(decision("v1", "search", rule_type="experiment"))])
    found = experiment_series(metrics)
    assert found.pop("flagpost_sample_ratio_evidence checkout rule") < 0
    assert found == {
        "flagpost_experiment_visitors checkout rule a": 2,
        "flagpost_experiment_visitors checkout rule b": 1,
        "flagpost_experiment_visitors search rule a": 1,
        "flagpost_experiment_expected_share checkout rule a": 0.5,
        "flagpost_experiment_expected_share checkout rule b": 0.5,
    }


def test_the_end_of_a_transaction_is_not_lag() -> None:
    page = scrape(p0=Lag(end=9, read=8, position=9), p1=Lag(end=9, read=5, position=5))
    assert 'flagpost_consumer_lag{partition="0",topic="t"} 0.0' in page
    assert 'flagpost_consumer_lag{partition="1",topic="t"} 4.0' in page
