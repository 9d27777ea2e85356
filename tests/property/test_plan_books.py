"""Whatever is planned, every decision is counted in one place, at every moment of the simulation."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.commands.plan.costs import SHIPPED
from flagpost_consumer.commands.plan.pod import START_MS, Pendo, Pod
from flagpost_consumer.commands.plan.traffic import Decisions, Load, Visitors
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import (
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    Policy,
)

LOADS = st.builds(
    Load,
    decisions_per_second=st.floats(1, 300),
    visitors=st.integers(1, 2_000),
    skew=st.floats(0, 2),
    flags=st.integers(1, 5),
    partitions=st.integers(1, 6),
    backlog=st.integers(0, 300),
)
POLICIES = st.builds(
    lambda interval, ttl, connections, budget, most, metadata: Policy(
        delivery=DeliverySettings(
            visitor_interval_seconds=interval, max_pending=most, max_pending_per_visitor=most // 4
        ),
        dedupe=DedupeSettings(ttl_seconds=ttl),
        limits=EndpointLimits(max_connections=connections, track_requests_per_minute=budget),
        decisions=DecisionsSettings(visitor_metadata=metadata),
    ),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.0, 5.0, 1800.0]),
    st.integers(1, 64),
    st.sampled_from([None, 60.0, 6_000.0]),
    st.integers(20, 20_000),
    st.booleans(),
)
SECONDS = 6


@given(
    load=LOADS,
    policy=POLICIES,
    latency=st.floats(0, 2),
    jitter=st.floats(0, 1),
    slowness=st.sampled_from([0.0, 1.0, 50.0]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=examples(40))
def test_the_books_of_a_plan_are_right_at_every_moment(
    load: Load, policy: Policy, latency: float, jitter: float, slowness: float, seed: int
) -> None:
    visitors = Visitors(load)
    decisions = [
        Decisions(load, visitors, number, seed=seed, start_ms=START_MS) for number in range(load.partitions)
    ]
    pod = Pod(
        policy,
        SHIPPED.costs.times(slowness),
        Pendo(latency, jitter),
        decisions,
        load.partitions,
        Random(seed),
    )
    pod.begin({each.partition: each.before(SECONDS, policy.dedupe.ttl_seconds) for each in decisions})
    before = pod.engine.accounts.planned[Kind.TRACK]
    for second in range(1, SECONDS + 1):
        pod.run(second)
        accounts, counted = pod.engine.accounts, pod.counted
        assert all(accounts.difference(kind) == 0 for kind in Kind)
        # Every decision that was read is one track delivery, and every one that has come is read or waits.
        assert (
            accounts.planned[Kind.TRACK] - before == counted.records == sum(each.read for each in decisions)
        )
        assert pod.behind >= pod.engine.pending_records
        assert accounts.pending[Kind.TRACK] >= pod.engine.track.in_flight
        settled = sum(count for (kind, _), count in counted.settled.items() if kind is Kind.TRACK)
        in_books = sum(accounts.total(Kind.TRACK, outcome) for outcome in Outcome)
        assert settled >= in_books, "what ended is in the books once Kafka has it"
        assert len(counted.ages) == counted.settled[Kind.TRACK, Outcome.DELIVERED]
        assert all(age >= 0 for age in counted.ages)
