"""What a load demands, by arithmetic: how much is delivered, and how many pods that takes.

In: a load, settings, costs. Out: long-run rates and limits, which a simulation of a minute cannot show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf

from flagpost_consumer.commands.plan.costs import Costs
from flagpost_consumer.commands.plan.pod import Pendo
from flagpost_consumer.commands.plan.traffic import Load, Visitors
from flagpost_consumer.core.metadata.sent_values import MAX_BYTES
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.tracks.repeats import WORTH_IT

CPU_HEADROOM = 0.7
"""The greatest part of a core that a pod's event loop should need: above it, the backlog grows with every burst."""
CONNECTION_HEADROOM = 0.8
"""The greatest part of its connections that a pod should need, for the same reason."""
CLAIM_TTLS = 3
"""A claim is kept until it cannot have duplicates: for two ttl, and up to a third because it is removed with
others.
"""
SENT_VALUE_TTLS = 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What some partitions demand, for each second."""

    decisions: float = 0.0
    deliveries: float = 0.0
    """Track events for Pendo: decisions without duplicates."""
    values: float = 0.0
    """Metadata values for Pendo, if metadata is sent."""

    def __add__(self, other: Demand) -> Demand:
        return Demand(
            self.decisions + other.decisions, self.deliveries + other.deliveries, self.values + other.values
        )

    def times(self, factor: float) -> Demand:
        """The demand multiplied by a factor."""
        return Demand(self.decisions * factor, self.deliveries * factor, self.values * factor)


def demand_of(load: Load, visitors: Visitors, partition: int, ttl_seconds: float) -> Demand:
    """The demand of one partition.

    A visitor decides about each flag `rate` times a second, at random. A decision that is sent makes those of the
    next ttl duplicates; after them the next one comes within 1 / rate on average: one is sent every ttl + 1 / rate. A
    metadata value is sent if there was none for a ttl: an equal value makes the earlier one younger.
    """
    total = Demand()
    for count, share in visitors.groups(partition):
        total += _of_visitor(load, share, ttl_seconds).times(count)
    return total


def _of_visitor(load: Load, share: float, ttl_seconds: float) -> Demand:
    decisions = load.decisions_per_second * share
    expected = decisions / load.flags * ttl_seconds
    return Demand(decisions, decisions / (1.0 + expected), decisions * exp(-expected))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load needs of pods and of Pendo."""

    policy: Policy
    costs: Costs
    pendo: Pendo
    partitions: Sequence[Demand]
    shares: Sequence[float]
    """The part of all decisions that each partition gets."""
    hottest_partition: int
    """The partition of the hottest visitor."""
    hottest_visitor: Demand
    decodes_all: bool = False
    """Whether duplicates are decoded too (with `metrics.flags`)."""

    @property
    def total(self) -> Demand:
        """The demand of all partitions."""
        return sum(self.partitions, Demand())

    def partitions_a_pod(self, pods: int) -> int:
        """The greatest number of partitions of a pod."""
        return ceil(len(self.partitions) / pods)

    def busiest_pod(self, pods: int) -> Demand:
        """The demand on the pod with the hottest partition; its other partitions are average ones."""
        hottest, others = self.partitions[self.hottest_partition], len(self.partitions) - 1
        if not others:
            return hottest
        rest = self.total + hottest.times(-1.0)
        return hottest + rest.times((self.partitions_a_pod(pods) - 1) / others)

    def pods(self) -> int | None:
        """The fewest pods that suffice; None: even one for each partition does not."""
        for pods in range(1, len(self.partitions) + 1):
            busiest = self.busiest_pod(pods)
            if self.loop(busiest) <= CPU_HEADROOM and self.connections(busiest) <= CONNECTION_HEADROOM:
                return pods
        return None

    def loop(self, demand: Demand) -> float:
        """The part of its time that an event loop is busy with this."""
        costs = self.costs
        microseconds = (costs.record_us + costs.request_us) * demand.deliveries
        microseconds += self.duplicate_us(demand) * (demand.decisions - demand.deliveries)
        if self.policy.decisions.visitor_metadata:
            microseconds += costs.metadata_sent_us * demand.values
            microseconds += costs.metadata_unsent_us * (demand.decisions - demand.values)
        return microseconds / 1e6 * costs.loop_share

    def duplicate_us(self, demand: Demand) -> float:
        """CPU microseconds of a duplicate: where there are few, they are not looked for before they are decoded."""
        are_recognised = demand.deliveries < (1 - 1 / WORTH_IT) * demand.decisions
        return self.costs.duplicate_us if are_recognised and not self.decodes_all else self.costs.record_us

    def connections(self, demand: Demand) -> float:
        """The part of its connections that a pod has in use on average (Little's law)."""
        seconds = self.pendo.latency_seconds + self.pendo.jitter_seconds
        return demand.deliveries * seconds / self.policy.limits.max_connections

    def track_requests_per_minute(self, pods: int) -> float:
        """The group's budget with which every pod has enough: each has a share by the number of its partitions."""
        return 60.0 * self._at_every_pod(pods, lambda demand: demand.deliveries)

    def metadata_requests_per_minute(self, pods: int) -> float:
        """The same for metadata with full requests: with fewer requests, each waits until it is fuller."""
        if not self.policy.decisions.visitor_metadata:
            return 0.0
        return 60.0 * self._at_every_pod(pods, lambda demand: demand.values) / self.policy.metadata.batch_size

    def _at_every_pod(self, pods: int, rate: Callable[[Demand], float]) -> float:
        share = self.partitions_a_pod(pods) / len(self.partitions)
        return max(rate(self.total), rate(self.busiest_pod(pods)) / share)

    @property
    def visitor_deliveries_per_second(self) -> float:
        """How many deliveries of one visitor can be sent a second, one after the other."""
        seconds = self.policy.delivery.visitor_interval_seconds + self.pendo.latency_seconds
        return 1.0 / seconds if seconds else inf

    def claims(self, pods: int) -> float:
        """How many decisions the busiest pod remembers without a limit."""
        return self.busiest_pod(pods).deliveries * self.policy.dedupe.ttl_seconds * CLAIM_TTLS

    def claims_needed(self, pods: int) -> float:
        """How many of them can still have duplicates: with fewer, duplicates are sent."""
        return self.busiest_pod(pods).deliveries * self.policy.dedupe.ttl_seconds

    def memory_bytes(self, pods: int, pending: float) -> float:
        """The memory of the busiest pod with this many pending records."""
        costs, most = self.costs, self.policy.dedupe.max_entries
        memory = costs.base_bytes + pending * costs.pending_bytes
        memory += min(self.claims(pods), most) * costs.claim_bytes
        if self.policy.decisions.visitor_metadata:
            values = self.busiest_pod(pods).values * self.policy.dedupe.ttl_seconds * SENT_VALUE_TTLS
            memory += min(min(values, most) * costs.sent_value_bytes, MAX_BYTES)
        return memory


def needs_of(
    load: Load, visitors: Visitors, policy: Policy, costs: Costs, pendo: Pendo, *, decodes_all: bool = False
) -> Needs:
    """Work out what a load needs."""
    ttl = policy.dedupe.ttl_seconds
    partitions = [demand_of(load, visitors, number, ttl) for number in range(load.partitions)]
    hottest = _of_visitor(load, visitors.hottest_share, ttl)
    shares = [visitors.share(number) for number in range(load.partitions)]
    return Needs(policy, costs, pendo, partitions, shares, visitors.hottest_partition, hottest, decodes_all)
