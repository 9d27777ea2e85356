"""The programs' metrics: /metrics, scraped from running processes.

In: nothing; each program is started without Kafka, because every series exists from the start. Out: each program's
metrics with their help, type, labels and those labels' values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from flagpost_publisher import Publisher
from flagpost_publisher.metrics import PublisherCollector
from gateway_running import RunningGateway
from running import RunningConsumer

NO_KAFKA = {"kafka.bootstrap_servers": "127.0.0.1:1"}

ONLY_WITH_TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "flagpost_decisions": ("flag", "variation", "outcome"),
    "flagpost_consumer_lag": ("topic", "partition"),
    "flagpost_experiment_visitors": ("flag", "rule", "variation"),
    "flagpost_experiment_expected_share": ("flag", "rule", "variation"),
    "flagpost_sample_ratio_evidence": ("flag", "rule"),
}
"""Labels of the metrics that have series only with traffic; test_real_prometheus.py checks them."""

_SERIES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a program."""

    name: str
    """As in the HELP line, without the suffix of its type."""
    type: str
    text: str
    labels: Mapping[str, frozenset[str]]
    """Each label's values; none if they exist only with traffic."""

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries use."""
        return tuple(self.name + ending for ending in _SERIES.get(self.type, ("",)))


Programs = Mapping[str, tuple[Metric, ...]]
"""Each program's metrics."""


async def scrape_all() -> Programs:
    """Start each program, scrape it once, and end it."""
    return {
        "consumer": metrics_in(_consumer()),
        "gateway": metrics_in(await _gateway()),
        "publisher": metrics_in(_publisher()),
    }


def metrics_in(text: str) -> tuple[Metric, ...]:
    """The metrics of an exposition, without the times at which counters began."""
    families = text_string_to_metric_families(text)
    return tuple(_metric(family) for family in families if not family.name.endswith("_created"))


def _metric(family: Family) -> Metric:
    labels: dict[str, set[str]] = {name: set() for name in ONLY_WITH_TRAFFIC.get(family.name, ())}
    for sample in family.samples:
        for name, value in sample.labels.items():
            labels.setdefault(name, set()).add(value)
    return Metric(
        family.name, family.type, family.documentation, {name: frozenset(labels[name]) for name in labels}
    )


def _consumer() -> str:
    settings = {**NO_KAFKA, "pendo.track_secret": "unused", "decisions.visitor_metadata": False}
    with RunningConsumer(settings) as consumer:
        return consumer.get("/metrics")[1].decode()


async def _gateway() -> str:
    async with (
        RunningGateway(NO_KAFKA) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.admin_url}/metrics") as answer,
    ):
        return await answer.text()


def _publisher() -> str:
    registry = CollectorRegistry()
    with Publisher(bootstrap_servers=NO_KAFKA["kafka.bootstrap_servers"]) as publisher:
        registry.register(PublisherCollector(publisher))
        return generate_latest(registry).decode()


def by_series(programs: Programs) -> dict[str, Metric]:
    """Each metric by the names that queries use; if several programs have one, that of the first."""
    found: dict[str, Metric] = {}
    for metric in _all(programs):
        for name in metric.series:
            found.setdefault(name, metric)
    return found


def _all(programs: Programs) -> Iterable[Metric]:
    return (metric for metrics in programs.values() for metric in metrics)


def sentence(text: str) -> str:
    """A help text, as it is written in a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
