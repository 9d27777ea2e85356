"""A forecast: two simulated pods, the busiest and a usual one, and what the whole group needs.

In: a load, settings, what work costs, the pods. Out: whether it holds, why not, and the figures. The busiest pod is
the one with the hottest visitor. If a pod is too busy to be simulated completely, only some of its partitions are,
with their part of its CPU, connections and memory; the hottest visitor's is always among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import expm1, nan, sqrt
from random import Random
from statistics import mean

from flagpost_consumer.commands.plan.costs import Costs
from flagpost_consumer.commands.plan.demand import CONNECTION_HEADROOM, CPU_HEADROOM, Needs, needs_of
from flagpost_consumer.commands.plan.pod import FETCH_SECONDS, START_MS, Counted, Pendo, Pod
from flagpost_consumer.commands.plan.traffic import Decisions, Load, Visitors
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.terminal.numbers import count_of

MIB = 2**20
STEPS = 60
"""Points of a chart."""
LEAST_SECONDS = 10.0
"""At least this much is simulated, even of the busiest partition."""
GROWTH = 0.02
"""The backlog grows without end if this part of the incoming records is added to it in the last quarter of
the time.
"""
SECONDS_THAT_MATTER = 1.0
"""This many seconds of incoming records may always wait, besides those that wait for a batch of metadata."""
NOISE = 2.0
"""How many standard deviations of a backlog of random arrivals a growth must be, to be one. What grows more slowly is
found by the arithmetic.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parameters of a forecast."""

    load: Load
    policy: Policy
    costs: Costs
    pendo: Pendo
    pods: int | None
    """None: as many as are needed."""
    seconds: float
    memory_limit_bytes: float
    most_decisions: int
    """About this many decisions are simulated at most."""
    seed: int
    decodes_all: bool = False
    """Whether duplicates are decoded too (with `metrics.flags`)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The simulated part of one pod."""

    partitions: tuple[int, ...]
    of_pod: int
    """How many partitions the pod has."""
    fraction: float
    """The part of the pod's work."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Point:
    """A pod at one moment."""

    at: float
    lag: float
    """Records that have arrived and are not settled."""
    age_seconds: float
    """The 99th percentile since the previous point, from the decision to Pendo's answer; nan if nothing was sent."""


@dataclass(frozen=True, slots=True)
class Ages:
    """Times from the decision to Pendo's answer, in seconds; nan if nothing was sent."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, ages: Iterable[float]) -> Ages:
        """Sum up."""
        ordered = sorted(ages)
        if not ordered:
            return cls(nan, nan, nan)
        return cls(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])


@dataclass(frozen=True, slots=True)
class PodForecast:
    """The forecast for one pod."""

    sample: Sample
    decisions_per_second: float
    """Decisions for this pod."""
    points: tuple[Point, ...]
    ages: Ages
    cpu_cores: float
    most_pending: float
    """Records in memory at once."""
    delivered_per_second: float
    duplicates_per_second: float
    """Of track deliveries."""
    metadata_requests_per_second: float
    dead_letters: float
    wait_seconds: float
    """This many seconds of incoming records may always wait."""

    @property
    def growth(self) -> float:
        """How many records a second are added to the lag in the last quarter of the time."""
        before, after = self._quarters()
        return (_mean_lag(after) - _mean_lag(before)) / (after[-1].at - before[-1].at)

    @property
    def falls_behind(self) -> bool:
        """Whether the lag grows without end, by more than random arrivals make it rise and fall.

        A lag of n simulated records that wait independently has a standard deviation of √n.
        """
        before, after = self._quarters()
        lag, fraction = _mean_lag(after), self.sample.fraction
        matters = lag > self.wait_seconds * self.decisions_per_second
        rise = lag - _mean_lag(before)
        shows = rise > NOISE * sqrt(2 * lag / fraction)
        return matters and shows and self.growth > GROWTH * self.decisions_per_second

    def _quarters(self) -> tuple[Sequence[Point], Sequence[Point]]:
        """The third and the last quarter of the time."""
        quarter = len(self.points) // 4
        return self.points[-2 * quarter : -quarter], self.points[-quarter:]


def _mean_lag(points: Sequence[Point]) -> float:
    return mean(point.lag for point in points)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast for a load."""

    wanted: Wanted
    needs: Needs
    pods: int
    busiest: PodForecast
    usual: PodForecast
    """A usual pod; the busiest itself if there is no other."""

    @property
    def pods_needed(self) -> int | None:
        """The fewest pods that suffice; None: more than there are partitions."""
        return self.needs.pods()

    @property
    def memory_bytes(self) -> float:
        """The memory of the busiest pod."""
        return self.needs.memory_bytes(self.pods, self.busiest.most_pending)

    @property
    def track_budget(self) -> float:
        """Requests a minute that Pendo must accept from the group."""
        return self.needs.track_requests_per_minute(self.pods)

    @property
    def metadata_budget(self) -> float:
        """The same for metadata."""
        return self.needs.metadata_requests_per_minute(self.pods)

    def of_group(self, figure: Callable[[PodForecast], float]) -> float:
        """A figure for all pods together."""
        return figure(self.busiest) + (self.pods - 1) * figure(self.usual)

    @property
    def problems(self) -> list[str]:
        """Why the load does not hold."""
        return [*_wrong_in_the_long_run(self), *_wrong_in_the_run(self)]


Steps = Callable[[Sequence[int]], Iterator[int]]
"""Iterates over the steps, and shows the progress."""


def forecast(wanted: Wanted, steps: Steps = iter) -> Forecast:
    """Simulate the busiest pod, and a usual one if there is another."""
    load = wanted.load
    visitors = Visitors(load)
    needs = needs_of(
        load, visitors, wanted.policy, wanted.costs, wanted.pendo, decodes_all=wanted.decodes_all
    )
    # Pods beyond the number of partitions have nothing to do.
    pods = min(wanted.pods or needs.pods() or load.partitions, load.partitions)
    of_pod = needs.partitions_a_pod(pods)
    others = [number for number in range(load.partitions) if number != needs.hottest_partition]
    Random(wanted.seed).shuffle(others)  # noqa: S311 - no secret
    simulated = [_Simulated(wanted, visitors, needs, [needs.hottest_partition, *others[: of_pod - 1]])]
    if pods > 1:
        simulated.append(
            _Simulated(wanted, visitors, needs, others[of_pod - 1 :][:of_pod] or others[:of_pod])
        )
    points: list[list[Point]] = [[] for _ in simulated]
    for step in steps(range(STEPS * len(simulated))):
        which, number = divmod(step, STEPS)
        points[which].append(simulated[which].go_on(number + 1))
    pod_forecasts = [each.sum_up(seen) for each, seen in zip(simulated, points, strict=True)]
    return Forecast(wanted, needs, pods, pod_forecasts[0], pod_forecasts[-1])


def choose(wanted: Wanted, shares: Sequence[float], of_pod: Sequence[int]) -> Sample:
    """Choose as many of a pod's partitions as the work allows, from the first on."""
    load = wanted.load
    whole_run = load.decisions_per_second * wanted.seconds + load.backlog
    chosen, share = [of_pod[0]], shares[of_pod[0]]
    for number in of_pod[1:]:
        if (share + shares[number]) * whole_run > wanted.most_decisions:
            break
        chosen.append(number)
        share += shares[number]
    affordable = wanted.most_decisions / max(1e-9, share * load.decisions_per_second)
    return Sample(
        tuple(chosen),
        len(of_pod),
        share / sum(shares[number] for number in of_pod),
        min(wanted.seconds, max(LEAST_SECONDS, affordable)),
    )


def scaled_policy(policy: Policy, fraction: float) -> Policy:
    """The limits for a part of a pod."""

    def part(whole: int) -> int:
        return max(1, round(whole * fraction))

    limits, delivery, dedupe = policy.limits, policy.delivery, policy.dedupe
    return policy.model_copy(
        update={
            "limits": limits.model_copy(update={"max_connections": part(limits.max_connections)}),
            "delivery": delivery.model_copy(
                update={
                    "max_pending": part(delivery.max_pending),
                    "max_pending_bytes": part(delivery.max_pending_bytes),
                }
            ),
            "dedupe": dedupe.model_copy(update={"max_entries": part(dedupe.max_entries)}),
        }
    )


def scaled_costs(costs: Costs, fraction: float, per_second: float) -> Costs:
    """The costs for a part of a pod, which has a part of its CPU, with this many decisions a second.

    If decisions come all the time, the whole pod takes them together, and so has no more exchanges than the part.
    """
    at_once = per_second * FETCH_SECONDS
    more = expm1(-at_once / fraction) / expm1(-at_once) if at_once else 1 / fraction
    return costs.times(1 / fraction).model_copy(update={"exchange_us": costs.exchange_us * more})


class _Simulated:
    """A pod, or a part of one, in its simulation."""

    def __init__(self, wanted: Wanted, visitors: Visitors, needs: Needs, of_pod: Sequence[int]) -> None:
        self._wanted = wanted
        self._of_pod_per_second = sum(needs.partitions[number].decisions for number in of_pod)
        sample = self._sample = choose(wanted, needs.shares, of_pod)
        decisions = [
            Decisions(wanted.load, visitors, number, seed=wanted.seed, start_ms=START_MS)
            for number in sample.partitions
        ]
        # A budget is shared by partitions: these get their part of the pod's.
        count = round(len(decisions) * wanted.load.partitions / (sample.of_pod * sample.fraction))
        self._pod = Pod(
            scaled_policy(wanted.policy, sample.fraction),
            scaled_costs(wanted.costs, sample.fraction, sum(each.per_second for each in decisions)),
            wanted.pendo,
            decisions,
            count,
            Random(wanted.seed),  # noqa: S311 - no secret
            decodes_all=wanted.decodes_all,
        )
        ttl_seconds = wanted.policy.dedupe.ttl_seconds
        self._pod.begin({each.partition: each.before(sample.seconds, ttl_seconds) for each in decisions})
        self._seen = 0

    def go_on(self, step: int) -> Point:
        """Continue to the end of a step."""
        pod, sample = self._pod, self._sample
        pod.run(sample.seconds * step / STEPS)
        ages = Ages.of(pod.counted.ages[self._seen :])
        self._seen = len(pod.counted.ages)
        return Point(pod.now, pod.behind / sample.fraction, ages.p99)

    def sum_up(self, points: Sequence[Point]) -> PodForecast:
        """The results for the whole pod."""
        counted, sample, policy = self._pod.counted, self._sample, self._wanted.policy
        sends_metadata = policy.decisions.visitor_metadata
        per_second = 1 / sample.fraction / sample.seconds
        return PodForecast(
            sample=sample,
            decisions_per_second=self._of_pod_per_second,
            points=tuple(points),
            ages=Ages.of(counted.ages),
            cpu_cores=counted.cpu_seconds / sample.seconds + self._wanted.costs.idle_us_per_second / 1e6,
            most_pending=counted.most_pending / sample.fraction,
            delivered_per_second=counted.settled[Kind.TRACK, Outcome.DELIVERED] * per_second,
            duplicates_per_second=counted.settled[Kind.TRACK, Outcome.DUPLICATE] * per_second,
            metadata_requests_per_second=self._metadata_requests(counted) / sample.seconds,
            dead_letters=counted.settled[Kind.TRACK, Outcome.DEAD_LETTERED] / sample.fraction,
            wait_seconds=SECONDS_THAT_MATTER + (policy.metadata.linger_seconds if sends_metadata else 0.0),
        )

    def _metadata_requests(self, counted: Counted) -> float:
        """A whole pod makes no more requests than a part of it, but fuller ones, until they are full."""
        values = counted.settled[Kind.VISITOR_METADATA, Outcome.DELIVERED] / self._sample.fraction
        return max(counted.requests[EndpointName.METADATA], values / self._wanted.policy.metadata.batch_size)


def _wrong_in_the_long_run(forecast: Forecast) -> Iterator[str]:
    """Why it does not hold, by arithmetic."""
    needs, pods, policy = forecast.needs, forecast.pods, forecast.wanted.policy
    yield from _too_few_pods(needs, pods)
    hottest, possible = needs.hottest_visitor.deliveries, needs.visitor_deliveries_per_second
    if hottest > possible:
        yield (
            f"the hottest visitor gets {hottest:,.2f} track events a second, but only {possible:,.2f} can be sent in "
            "order and at its pace (delivery.visitor_interval_seconds, Pendo's latency): more pods do not help"
        )
    for name, given, needed in (
        ("track", policy.limits.track_requests_per_minute, forecast.track_budget),
        ("metadata", policy.limits.metadata_requests_per_minute, forecast.metadata_budget),
    ):
        if given is not None and needed > given:
            yield f"pendo.{name}_requests_per_minute is {given:,.0f}, but {needed:,.0f} are needed"
    if (claims := needs.claims_needed(pods)) > policy.dedupe.max_entries:
        yield (
            f"dedupe.max_entries is {policy.dedupe.max_entries:,}, but the busiest pod sends {claims:,.0f} track "
            "events in dedupe.ttl_seconds: it would forget entries too early and miss duplicates"
        )
    if forecast.memory_bytes > forecast.wanted.memory_limit_bytes:
        yield (
            f"the busiest pod needs {forecast.memory_bytes / MIB:,.0f} MiB of memory, but its limit is "
            f"{forecast.wanted.memory_limit_bytes / MIB:,.0f}"
        )


def _too_few_pods(needs: Needs, pods: int) -> Iterator[str]:
    needed, busiest = needs.pods(), needs.busiest_pod(pods)
    if needed is not None and pods >= needed:
        return
    at_work = (
        f"the busiest needs {needs.loop(busiest):.0%} of its event loop and {needs.connections(busiest):.0%} of its "
        f"connections; it should need at most {CPU_HEADROOM:.0%} and {CONNECTION_HEADROOM:.0%}"
    )
    if needed is None:
        yield f"one pod per partition is not enough: {at_work}; use more partitions, or raise pendo.max_connections"
    else:
        yield f"{count_of(pods, 'pod')} {'is' if pods == 1 else 'are'} not enough; {needed:,} are needed: {at_work}"


def _wrong_in_the_run(forecast: Forecast) -> Iterator[str]:
    """Why it does not hold, according to the simulation."""
    if forecast.busiest.falls_behind:
        yield f"the backlog of the busiest pod grows by {forecast.busiest.growth:,.0f} records a second without end"
    if forecast.usual is not forecast.busiest and forecast.usual.falls_behind:
        yield f"the backlog of each other pod grows by {forecast.usual.growth:,.0f} records a second without end"
    if dead := forecast.of_group(lambda pod: pod.dead_letters):
        yield f"{dead:,.0f} events became dead letters because too many of one visitor waited (visitor_backlog)"
