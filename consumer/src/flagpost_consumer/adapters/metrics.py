"""The consumer's metrics, under the names of docs/contract.md#metrics.

In: the engine's counts, read at each scrape, and what the shells observe. Out: a Prometheus registry. The
engine counts in plain integers and the scrape, which runs on the same loop, turns them into series: so every
scrape is one consistent moment, and counting costs the hot path next to nothing. No label ever holds an id.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as CountOf
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from flagpost_consumer import __version__
from flagpost_consumer.adapters.kafka.intake_handler import Lag
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.books.stalls import Stall, Stalled
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.planning.schema_lookups import RegistryWait
from flagpost_consumer.core.planning.selection import not_selected
from flagpost_consumer.core.records import EventFacts, Record, Undecoded
from flagpost_consumer.core.splits.sample_ratio import Shares
from flagpost_consumer.core.splits.visitors import ExperimentVisitors
from flagpost_schemas import DecisionEvent

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
AGE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400, 604800)
HOTTEST_LANES = 5
STATUSES_FROM_THE_START = ("200", "400", "401", "403", "404", "408", "429", "500", "502", "503", "504")

LIMITS = {
    "delivery": (
        "max_age_seconds",
        "max_pending",
        "max_pending_bytes",
        "max_pending_per_visitor",
    ),
    "dedupe": ("max_entries",),
    "pendo": ("max_connections", "metadata_timeout_seconds", "request_timeout_seconds"),
}
"""Settings, by section, that alert rules and dashboards compare with. A copy of the defaults there would often be
wrong.
"""


MAX_VARIATIONS = 100
"""Limit of variations of one flag: publishers choose the names, and each is a series until the process ends."""
MAX_VARIATION_CHARACTERS = 100
OTHER_VARIATIONS = "other"


class Distribution:
    """Seconds in buckets: prometheus_client's own histogram takes a lock for each of two numbers."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = (*bounds, inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Add it as a metric to a family."""
        up_to = zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True)
        family.add_metric(labels, list(up_to), self._sum)


@dataclass(slots=True)
class Observed:
    """What the shells count."""

    requests: CountOf[tuple[EndpointName, str]] = field(default_factory=CountOf)
    rebalances: CountOf[str] = field(default_factory=CountOf)
    decisions: CountOf[tuple[str, str, Outcome]] = field(default_factory=CountOf)
    stalls: Callable[[], Mapping[int, Stalled]] = dict
    """Partitions that make no progress, and why."""
    ledger_damaged: int = 0
    quarantined: int = 0
    """Records for which the decoder raised twice; the engine counts its own."""
    registry_waits: Callable[[], Sequence[RegistryWait]] = tuple
    """The partitions that wait for the schema registry."""
    topics_replaced: CountOf[str] = field(default_factory=CountOf)
    lag: dict[int, Lag] = field(default_factory=dict)
    loop_lag_seconds: float = 0.0
    restore_seconds: float = 0.0
    oldest_attempt_seconds: Callable[[], float] = lambda: 0.0
    """Asked at each scrape."""


class Metrics:
    """One process's metrics."""

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], Instant],
        *,
        topic: str,
        topics: Iterable[str] = (),
        flags: Iterable[str] = (),
        splits: Mapping[str, Shares] | None = None,
    ) -> None:
        """`topic`: the events topic; `topics`: all that the consumer reads or writes; `splits`: expected splits of
        flags.
        """
        self._engine = engine
        self._clock = clock
        self._topic = topic
        self._topics = sorted({topic, *topics})
        self._flags = frozenset(flags)
        self._variations: dict[str, set[str]] = {flag: set() for flag in self._flags}
        """The variations that are used as labels."""
        self.experiments = ExperimentVisitors(self._flags, splits)
        self.observed = Observed()
        self.registry = CollectorRegistry()
        self._request_seconds = {name: Distribution(REQUEST_SECONDS) for name in EndpointName}
        self._event_age = Distribution(AGE_SECONDS)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    # What the shells tell

    def request_answered(self, attempt: Attempt, answer: Answer, seconds: float) -> None:
        """Note a request to Pendo."""
        self.observed.requests[attempt.endpoint, answer.label] += 1
        self._request_seconds[attempt.endpoint].observe(seconds)

    def received(self, records: Iterable[Record | Undecoded]) -> None:
        """Note the visitors of experiments in records that arrived."""
        if not self._flags:
            return
        select = self._engine.policy.select
        for record in records:
            event = None if isinstance(record, Undecoded) else record.event
            if not isinstance(event, DecisionEvent) or self._engine.current(record.partition) is None:
                continue
            if not_selected(event, select) is None:
                self.experiments.take(record.partition, event)

    def settled(self, settlement: Settlement) -> None:
        """Note a delivery whose settlement Kafka has acknowledged."""
        delivery, ending = settlement.delivery, settlement.ending
        occurred_at = delivery.record.occurred_at
        if ending.reason is Reason.OK and occurred_at is not None:
            self._event_age.observe(max(0, settlement.settled_at_ms - occurred_at) / 1000)
        if self._flags and delivery.kind is Kind.TRACK:
            self._count_decision(delivery.record.facts, ending.outcome)

    def _count_decision(self, facts: EventFacts, outcome: Outcome) -> None:
        if facts.flag_key in self._flags:
            variation = self._variation_of(facts.flag_key, facts.variation_key or "")
            self.observed.decisions[facts.flag_key, variation, outcome] += 1

    def _variation_of(self, flag: str, variation: str) -> str:
        """The label of a variation: the first hundred of each flag have one, if their names are short."""
        known = self._variations[flag]
        if variation in known:
            return variation
        if len(known) >= MAX_VARIATIONS or len(variation) > MAX_VARIATION_CHARACTERS:
            return OTHER_VARIATIONS
        known.add(variation)
        return variation

    # What a scrape reads

    def collect(self) -> Iterable[Metric]:
        """Return every series."""
        now = self._clock()
        yield from self._distributions()
        yield from self._record_series()
        yield from self._delivery_series()
        yield from self._experiment_series()
        yield from self._backlog_series(now)
        yield from self._pendo_series()
        yield from self._kafka_series()
        yield from self._dedupe_series()
        yield from self._process_series()

    def _distributions(self) -> Iterable[Metric]:
        request_seconds = HistogramMetricFamily(
            "flagpost_pendo_request_seconds",
            "Time from a request's start to the end of its answer.",
            labels=["endpoint"],
        )
        for name, distribution in self._request_seconds.items():
            distribution.add_to(request_seconds, name.value)
        yield request_seconds
        event_age = HistogramMetricFamily(
            "flagpost_event_age_seconds", "Time from an event's `occurred_at` until Pendo accepted it."
        )
        self._event_age.add_to(event_age)
        yield event_age

    def _record_series(self) -> Iterable[Metric]:
        accounts = self._engine.accounts
        yield _counter(
            "flagpost_records_consumed", "Records consumed from the events topic.", accounts.records
        )
        yield _counter(
            "flagpost_redeliveries",
            "Records that were read again although the ledger had already settled them.",
            accounts.redeliveries,
        )
        yield _counter(
            "flagpost_mispartitioned",
            "Visitors whose first record is on the wrong partition; at most 1,000 lanes a second are checked.",
            accounts.mispartitioned,
        )
        trimmed = CounterMetricFamily(
            "flagpost_properties_trimmed",
            "Repairs of properties that broke one of Pendo's rules, by rule.",
            labels=["rule"],
        )
        for rule in Rule:
            trimmed.add_metric([rule.value], accounts.repairs[rule])
        yield trimmed

    def _delivery_series(self) -> Iterable[Metric]:
        accounts = self._engine.accounts
        yield _by_kind(CounterMetricFamily, "planned", "Deliveries planned.", accounts.planned)
        yield _by_kind(
            CounterMetricFamily, "returned", "Deliveries handed back unsettled.", accounts.returned
        )
        yield _by_kind(GaugeMetricFamily, "pending", "Deliveries not settled yet.", accounts.pending)
        settled = CounterMetricFamily(
            "flagpost_deliveries", "Deliveries settled.", labels=["kind", "outcome", "reason"]
        )
        for kind in Kind:
            for reason in sorted(reason for reason in Reason if kind in reason.kinds):
                count = accounts.settled[kind, reason.outcome, reason]
                settled.add_metric([kind.value, reason.outcome.value, reason.value], count)
        yield settled
        decisions = CounterMetricFamily(
            "flagpost_decisions",
            "Decisions of the flags in metrics.flags, by how their track delivery ended.",
            labels=["flag", "variation", "outcome"],
        )
        for (flag, variation, outcome), count in self.observed.decisions.items():
            decisions.add_metric([flag, variation, outcome.value], count)
        yield decisions

    def _experiment_series(self) -> Iterable[Metric]:
        visitors = GaugeMetricFamily(
            "flagpost_experiment_visitors",
            "Visitors in the experiments of metrics.flags, in the partitions of this process. Each visitor counts "
            "once, with the first variation.",
            labels=["flag", "rule", "variation"],
        )
        expected = GaugeMetricFamily(
            "flagpost_experiment_expected_share",
            "The share of an experiment's visitors that should have a variation.",
            labels=["flag", "rule", "variation"],
        )
        found = GaugeMetricFamily(
            "flagpost_sample_ratio_evidence",
            "Evidence that these visitors are not split as expected: the logarithm of a Bayes factor. A sum of 4.6 "
            "over all processes is a mismatch at 1 %.",
            labels=["flag", "rule"],
        )
        for ((flag, rule), variation), count in self.experiments.counts().items():
            visitors.add_metric([flag, rule or "", variation], count)
        for (flag, rule), evidence in self.experiments.evidence().items():
            found.add_metric([flag, rule or ""], evidence)
            for variation, share in self.experiments.shares((flag, rule)).items():
                expected.add_metric([flag, rule or "", variation], share)
        yield from (visitors, expected, found)

    def _backlog_series(self, now: Instant) -> Iterable[Metric]:
        engine = self._engine
        unread = 0 if engine.waits_for_pendo(now) else self._unread()
        yield _gauge(
            "flagpost_backlog_sendable",
            "Deliveries that could be sent now if there were capacity, and records not read yet.",
            engine.sendable(now) + unread,
        )
        yield _gauge(
            "flagpost_backlog_paced", "Deliveries that wait for their visitor's pace.", engine.paced(now)
        )
        yield _gauge(
            "flagpost_pending_bytes",
            "Bytes that pending records take in memory: keys, values, headers and events.",
            engine.pending_bytes,
        )
        yield _gauge(
            "flagpost_pending_ratio",
            "Pending records or bytes as a fraction of their limit, whichever is greater; reading pauses at 1.",
            engine.fullness,
        )
        yield self._hottest_lanes()
        oldest = engine.oldest_pending_ms()
        yield _gauge(
            "flagpost_oldest_pending_timestamp_seconds",
            "When the oldest pending event occurred; the current time if nothing is pending.",
            (now.wall_ms if oldest is None else oldest) / 1000,
        )

    def _unread(self) -> int:
        """Unread records of the partitions that wait for nothing but capacity."""
        stalled = self.observed.stalls()
        return sum(lag.end - lag.position for n, lag in self.observed.lag.items() if n not in stalled)

    def _hottest_lanes(self) -> Metric:
        hottest = [waiting for _, waiting in self._engine.hottest_visitors(HOTTEST_LANES)]
        lanes = GaugeMetricFamily(
            "flagpost_hottest_lanes",
            "Deliveries that wait in the longest visitors' lanes, by rank.",
            labels=["rank"],
        )
        for rank in range(HOTTEST_LANES):
            lanes.add_metric([str(rank + 1)], hottest[rank] if rank < len(hottest) else 0)
        return lanes

    def _pendo_series(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "flagpost_pendo_requests", "Requests to Pendo.", labels=["endpoint", "status"]
        )
        for name in EndpointName:
            seen = {status for endpoint, status in self.observed.requests if endpoint is name}
            for status in sorted(seen.union(STATUSES_FROM_THE_START, ("timeout", "connection"))):
                requests.add_metric([name.value, status], self.observed.requests[name, status])
        yield requests
        in_flight = GaugeMetricFamily("flagpost_pendo_in_flight", "Requests in flight.", labels=["endpoint"])
        state = GaugeMetricFamily(
            "flagpost_pendo_state",
            "The state of an endpoint: the present state is 1, the others are 0.",
            labels=["endpoint", "state"],
        )
        budget = GaugeMetricFamily(
            "flagpost_pendo_budget_per_minute",
            "Requests that this process may start in a minute; infinite without a limit.",
            labels=["endpoint"],
        )
        for name, endpoint in self._engine.endpoints.items():
            in_flight.add_metric([name.value], endpoint.in_flight)
            budget.add_metric([name.value], endpoint.budget.per_minute)
            for possible in EndpointState:
                state.add_metric([name.value, possible.value], float(endpoint.state is possible))
        yield in_flight
        yield budget
        yield state
        yield _gauge(
            "flagpost_oldest_attempt_seconds",
            "How long the oldest request to Pendo has waited for its answer; 0 if none waits.",
            self.observed.oldest_attempt_seconds(),
        )

    def _kafka_series(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily(
            "flagpost_consumer_lag", "Records behind the end of the log.", labels=["topic", "partition"]
        )
        committable = self._engine.committable()
        for partition, known in self.observed.lag.items():
            settled_to = committable[partition].offset if partition in committable else known.read
            unread, unsettled = known.end - known.position, known.read - settled_to
            lag.add_metric([self._topic, str(partition)], max(0, unread) + max(0, unsettled))
        yield lag
        yield _gauge(
            "flagpost_partitions_assigned", "Partitions assigned to this process.", len(self._engine.assigned)
        )
        yield _gauge(
            "flagpost_topic_partitions",
            "Partitions that the events topic has; 0 until Kafka has answered.",
            self._engine.partition_count,
        )
        rebalances = CounterMetricFamily(
            "flagpost_rebalances", "Times that partitions were assigned, revoked or lost.", labels=["kind"]
        )
        for kind in ("assigned", "revoked", "lost"):
            rebalances.add_metric([kind], self.observed.rebalances[kind])
        yield rebalances
        yield _counter(
            "flagpost_offsets_lost",
            "Offsets whose records Kafka deleted before they were read, or that cannot be read.",
            self._engine.accounts.offsets_lost,
        )
        replaced = CounterMetricFamily(
            "flagpost_topic_replaced",
            "Topics created anew under their old name, and partitions whose log went back.",
            labels=["topic"],
        )
        for topic in self._topics:
            replaced.add_metric([topic], self.observed.topics_replaced[topic])
        yield replaced
        yield self._stalled()
        yield _gauge(
            "flagpost_registry_waiting",
            "Partitions whose next record waits for a schema of the schema registry.",
            len(self.observed.registry_waits()),
        )
        yield _counter(
            "flagpost_quarantined",
            "Records dead-lettered because Flagpost's own code failed on them twice: a defect.",
            self.observed.quarantined + self._engine.accounts.quarantined,
        )
        yield _counter(
            "flagpost_ledger_damaged",
            "Ledger records that could not be read and were skipped.",
            self.observed.ledger_damaged,
        )
        yield _gauge(
            "flagpost_ledger_unacknowledged",
            "Answers from Pendo whose settlement Kafka has not acknowledged yet.",
            self._engine.unacknowledged,
        )
        yield _gauge(
            "flagpost_ledger_restore_seconds",
            "How long the last restore of partitions from the ledger took.",
            self.observed.restore_seconds,
        )

    def _stalled(self) -> Metric:
        by_reason = CountOf(stalled.reason for stalled in self.observed.stalls().values())
        metric = GaugeMetricFamily(
            "flagpost_stalled", "Partitions that make no progress, by reason.", labels=["reason"]
        )
        for reason in Stall:
            metric.add_metric([reason.value], by_reason[reason])
        return metric

    def _dedupe_series(self) -> Iterable[Metric]:
        counts = self._engine.dedupe_counts
        yield _gauge(
            "flagpost_dedupe_entries",
            "Keys of events that are remembered, to find duplicates.",
            counts.entries,
        )
        yield _counter(
            "flagpost_dedupe_evicted_early",
            "Keys forgotten because dedupe.max_entries was reached.",
            counts.evicted_early,
        )
        yield _counter(
            "flagpost_dedupe_late",
            "Events more than dedupe.ttl_seconds late: a duplicate among them may be missed.",
            counts.late,
        )

    def _limits(self) -> Metric:
        policy = self._engine.policy
        sections: Mapping[str, object] = {
            "delivery": policy.delivery,
            "dedupe": policy.dedupe,
            "pendo": policy.limits,
        }
        limits = GaugeMetricFamily(
            "flagpost_limit", "The value of a setting that is a limit.", labels=["setting"]
        )
        for section, keys in LIMITS.items():
            for key in keys:
                limits.add_metric([f"{section}.{key}"], getattr(sections[section], key))
        return limits

    def _process_series(self) -> Iterable[Metric]:
        yield self._limits()
        yield _gauge(
            "flagpost_loop_lag_seconds", "How late the event loop runs.", self.observed.loop_lag_seconds
        )
        build = GaugeMetricFamily(
            "flagpost_build_info", "Always 1; the label is the version.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _by_kind(
    family: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    counts: Mapping[Kind, int],
) -> Metric:
    metric = family(f"flagpost_deliveries_{name}", text, labels=["kind"])
    for kind in Kind:
        metric.add_metric([kind.value], counts.get(kind, 0))
    return metric
