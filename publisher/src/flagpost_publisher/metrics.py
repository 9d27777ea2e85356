"""A Publisher's numbers for Prometheus, `flagpost_publisher_…` (extra `metrics`).

In: a Publisher. Out: its `stats()` at each scrape, as a collector for the registry of the service's own metrics:

    from prometheus_client import REGISTRY
    from flagpost_publisher.metrics import PublisherCollector

    REGISTRY.register(PublisherCollector(publisher))
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from flagpost_publisher.stats import PublisherStats

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "flagpost_publisher.metrics needs prometheus-client: pip install 'flagpost-publisher[metrics]'",
        name="prometheus_client",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from flagpost_publisher.publisher import Publisher

_TEXTS: Final = {
    "accepted": "Events accepted, to be sent to Kafka.",
    "delivered": "Accepted events that Kafka has acknowledged.",
    "failed": "Accepted events that Kafka did not take in time: they are lost.",
    "duplicates": "Decisions that were not published because they equal the visitor's last one.",
    "refused": "Events that were refused: they are lost.",
}


class PublisherCollector(Collector):
    """Shows one Publisher's numbers; a registry takes one. They are this process's: a forked child starts at 0."""

    def __init__(self, publisher: Publisher) -> None:
        """Keeps a reference to `publisher`."""
        self._publisher = publisher

    def describe(self) -> Iterator[Metric]:
        """The series' names; at registration the publisher is not asked."""
        return _series(PublisherStats())

    def collect(self) -> Iterator[Metric]:
        """The present series."""
        return _series(self._publisher.stats())


def _series(stats: PublisherStats) -> Iterator[Metric]:
    for field in fields(stats):
        name, value = f"flagpost_publisher_{field.name}", getattr(stats, field.name)
        if field.name in _TEXTS:
            yield CounterMetricFamily(name, _TEXTS[field.name], value=value)
        else:
            yield GaugeMetricFamily(name, "Accepted events that Kafka has not acknowledged yet.", value=value)
