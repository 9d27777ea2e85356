"""The gateway's Prometheus metrics, `flagpost_gateway_…`. No label ever holds an id.

In: what happened. Out: series at each scrape; those of enumerated labels exist from the start, at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flagpost_http.drops import Drop
from flagpost_publisher.gateway.admission import Admissions
from flagpost_publisher.gateway.kafka_writer import KafkaWriter
from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_schemas import Event
from flagpost_schemas.json_form import TYPES

STATUSES: Final = (200, 202, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503)
"""Every status that the gateway answers with."""

OTHER_PATHS: Final = "other"
"""The label for requests to paths that do not exist."""
HEALTH: Final = "health"
"""The label for load balancers' health checks."""
PORTS: Final = ("gateway", "admin")
ACCEPTED: Final = "accepted"
"""Kafka has the events."""
REFUSED: Final = "refused"
"""Kafka did not take the events."""

_NAMES: Final = {event_type: name for name, event_type in TYPES.items()}
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """The series of one gateway, in their own registry."""

    def __init__(self, set_aside_reasons: Iterable[str], not_believed_reasons: Iterable[str]) -> None:
        """All reasons of the fronts."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "flagpost_gateway_requests",
            "Requests, by route and status of the answer.",
            ["route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "flagpost_gateway_request_seconds",
            "Time from a request's headers to its answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        events = Counter(
            "flagpost_gateway_events",
            "Events in well-formed requests: accepted (Kafka has them) or refused (Kafka did not take them).",
            ["type", "outcome"],
            registry=self.registry,
        )
        self._events = {
            (each, outcome): events.labels(name, outcome)
            for each, name in _NAMES.items()
            for outcome in (ACCEPTED, REFUSED)
        }
        self._key_events = Counter(
            "flagpost_gateway_key_events",
            "Events, by the name of the write key that they were sent with.",
            ["key", "outcome"],
            registry=self.registry,
        )
        self._key_limited = Counter(
            "flagpost_gateway_key_limited",
            "Requests that were refused because their key was above its rate.",
            ["key"],
            registry=self.registry,
        )
        set_aside = Counter(
            "flagpost_gateway_set_aside",
            "Messages that were accepted but not published, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._set_aside = {reason: set_aside.labels(reason) for reason in set_aside_reasons}
        not_believed = Counter(
            "flagpost_gateway_times_not_believed",
            "Times in Segment's messages that were not believed, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._not_believed = {reason: not_believed.labels(reason) for reason in not_believed_reasons}
        self._body_bytes = Counter(
            "flagpost_gateway_body_bytes", "Bytes of bodies, after decompression.", registry=self.registry
        )
        dropped = Counter(
            "flagpost_gateway_connections_dropped",
            "Connections that were closed before they were answered, by port and reason.",
            ["port", "reason"],
            registry=self.registry,
        )
        self._dropped = {(port, drop): dropped.labels(port, drop.value) for port in PORTS for drop in Drop}
        build = Gauge(
            "flagpost_gateway_build_info",
            "Always 1; the label is the version.",
            ["version"],
            registry=self.registry,
        )
        build.labels(version("flagpost-publisher")).set(1)
        ProcessCollector(registry=self.registry)

    def expect(self, routes: Iterable[str]) -> None:
        """Create the series of these routes, and of other paths."""
        for route in (*routes, HEALTH, OTHER_PATHS):
            self._seconds.labels(route)
            for status in STATUSES:
                self._requests.labels(route, str(status))

    def know(self, keys: Iterable[str]) -> None:
        """Create the series of these keys."""
        for key in keys:
            self._key_limited.labels(key)
            for outcome in (ACCEPTED, REFUSED):
                self._key_events.labels(key, outcome)

    def limited(self, key: Key) -> None:
        """A request was refused because its key sends more than allowed."""
        self._key_limited.labels(key.name).inc()

    def watch(
        self,
        kafka: KafkaWriter,
        admissions: Admissions,
        connections: Callable[[], int],
        secrets: Sequence[SecretLines],
    ) -> None:
        """Show the present values of these at each scrape."""
        self.registry.register(_Now(kafka, admissions, connections, secrets))

    def dropped(self, port: str, drop: Drop) -> None:
        """A connection was ended."""
        self._dropped[port, drop].inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def read(self, body_bytes: int) -> None:
        """A body was read."""
        self._body_bytes.inc(body_bytes)

    def accepted(
        self,
        key: Key,
        counts: Mapping[type[Event], int],
        set_aside: Mapping[StrEnum, int],
        not_believed: Mapping[StrEnum, int],
    ) -> None:
        """Kafka has this many events of each kind; by reason, how many were set aside and how many times not
        believed.
        """
        self._count(key, counts, ACCEPTED)
        for reason, count in set_aside.items():
            self._set_aside[reason].inc(count)
        for reason, count in not_believed.items():
            self._not_believed[reason].inc(count)

    def refused(self, key: Key, counts: Mapping[type[Event], int]) -> None:
        """Kafka did not take this many events of each kind."""
        self._count(key, counts, REFUSED)

    def _count(self, key: Key, counts: Mapping[type[Event], int], outcome: str) -> None:
        self._key_events.labels(key.name, outcome).inc(sum(counts.values()))
        for event_type, count in counts.items():
            self._events[event_type, outcome].inc(count)


class _Now(Collector):
    """What is read at each scrape."""

    def __init__(
        self,
        kafka: KafkaWriter,
        admissions: Admissions,
        connections: Callable[[], int],
        secrets: Sequence[SecretLines],
    ) -> None:
        self._kafka = kafka
        self._admissions = admissions
        self._connections = connections
        self._secrets = secrets

    def collect(self) -> Iterator[Metric]:
        """The series."""
        counts = self._kafka.counts()
        for name, text, value in (
            ("kafka_acknowledged", "Records that Kafka has acknowledged.", counts.acknowledged),
            ("kafka_failed", "Records that Kafka did not take in time.", counts.failed),
        ):
            yield CounterMetricFamily(f"flagpost_gateway_{name}", text, value=value)
        for name, text, value in (
            ("kafka_queued", "Records on their way to Kafka.", counts.queued),
            ("kafka_queued_bytes", "Bytes of the records on their way to Kafka.", counts.queued_bytes),
            ("kafka_up", "1 while Kafka takes events.", int(self._kafka.trouble is None)),
            ("requests_in_flight", "Requests in progress.", self._admissions.requests),
            ("body_bytes_in_flight", "Bytes of request bodies in memory.", self._admissions.held_bytes),
            ("connections", "Open connections on the gateway's port.", self._connections()),
        ):
            yield GaugeMetricFamily(f"flagpost_gateway_{name}", text, value=value)
        wrong = GaugeMetricFamily(
            "flagpost_gateway_secrets_wrong",
            "Lines in a file of keys or secrets that cannot be used; 1 if the file is empty or cannot be read.",
            labels=["setting"],
        )
        for lines in self._secrets:
            wrong.add_metric([lines.setting], lines.wrong)
        yield wrong
