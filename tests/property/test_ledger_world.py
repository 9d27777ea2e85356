"""The ledger under virtual time: after a crash, the next member continues with what the ledger contains."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import OK, START_MS, Member, World, acknowledge, decision, positions, ready, record
from example_counts import examples
from flagpost_consumer.core.books import ledger_window
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import Duplicates, Stage
from flagpost_consumer.core.books.ledger_window import LedgerWindow
from flagpost_consumer.core.books.restoration import Restoration, Settled
from flagpost_consumer.core.books.settled_before import SettledBefore
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DedupeSettings, DeliverySettings, EndpointLimits, Policy
from flagpost_consumer.core.records import Gap

SEEDS = st.integers(min_value=0, max_value=2**32)
CONNECTIONS = 8
TTL_MS = 20_000
POLICY = Policy(
    delivery=DeliverySettings(
        max_pending=60, max_pending_per_visitor=0, visitor_interval_seconds=0.1, max_age_seconds=600_000
    ),
    dedupe=DedupeSettings(ttl_seconds=TTL_MS / 1000),
    limits=EndpointLimits(
        max_connections=CONNECTIONS, request_timeout_seconds=3.0, metadata_timeout_seconds=5.0
    ),
)


def publish_traffic(world: World, random: Random, events: int, seconds: float) -> None:
    for number in range(events):
        moment = random.uniform(0, seconds)
        late = random.choice((0, 0, 0, random.randrange(TTL_MS - 2000)))
        event = decision(
            f"v{random.randrange(15)}",
            random.choice(("checkout", "search")),
            random.choice(("a", "b")),
            event_id=f"event-{number}",
            occurred_at=START_MS + int(moment * 1000) - late,
        )
        world.publish_at(moment, event)


def slow_at_times(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
    """A Pendo that accepts everything, some of it slowly."""
    del attempt
    return OK, world.random.uniform(0, 0.002), world.random.choice((0.005, 0.01, 0.5))


def unsure(member: Member) -> set[tuple[int, int]]:
    """(partition, offset) of the track deliveries that a crash now may send again."""
    return {
        (delivery.record.partition, delivery.record.offset)
        for partition in member.engine._partitions.values()
        for taken in partition.offsets.unsettled()
        if not isinstance(taken, Duplicates)
        for delivery in taken
        if delivery.kind is Kind.TRACK
        and (delivery.stage is Stage.IN_FLIGHT or (delivery.stage is Stage.SETTLED and delivery.attempts))
    }


def with_crashes(seed: int) -> tuple[World, set[tuple[int, int]]]:
    """Run a minute of traffic with members that crash at any point; returns the world and what may be sent again."""
    random = Random(seed)
    world = World(POLICY, random, partitions=3, answering=slow_at_times, acknowledge_seconds=0.3)
    world.join()
    publish_traffic(world, random, events=200, seconds=60.0)
    repeatable: set[tuple[int, int]] = set()

    def crash() -> None:
        member = world.members[-1]
        left = unsure(member)
        assert len(left) <= 3 * CONNECTIONS
        repeatable.update(left)
        freed = world.crash(member)
        # The group notices after the session time-out, which no request outlives.
        world.at(world.now + 5.0, lambda: world.join(freed))

    for number in range(4):
        world.at(number * 15 + random.uniform(0, 9), crash)
    world.run()
    return world, repeatable


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(15))
def test_only_what_was_in_flight_or_not_in_the_ledger_is_sent_again(seed: int) -> None:
    world, repeatable = with_crashes(seed)
    world.check_nothing_lost()
    world.check_spacing()
    sent = Counter((sight.partition, sight.offset) for sight in world.track_sights)
    assert {which for which, times in sent.items() if times > 1} <= repeatable


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(15))
def test_a_crash_changes_no_judgement_on_duplicates(seed: int) -> None:
    world, _ = with_crashes(seed)
    judged = {key: reason is Reason.DEDUPE for key, reason in world.reasons().items()}
    for partition, records in world.log.items():
        sent: dict[tuple[str, str, str], list[int]] = {}
        for made in records:
            event = made.event
            times = sent.setdefault((event.visitor_id, event.flag_key, event.variation_key), [])  # type: ignore[union-attr, arg-type]
            repeats = any(abs(event.occurred_at - time) < TTL_MS for time in times)  # type: ignore[union-attr]
            if not repeats:
                times.append(event.occurred_at)  # type: ignore[union-attr]
            assert judged[partition, made.offset] is repeats


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(12))
def test_a_restart_reads_only_the_needed_part_of_the_ledger(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger offset in a commit moves on: what a restart reads is bounded by the ttl, not by history.

    Chunks are a tenth as large here: the test is about how many of them are kept.
    """
    entries = 100
    monkeypatch.setattr(ledger_window, "CHUNK_ENTRIES", entries)
    random = Random(seed)
    world = World(POLICY, random, answering=slow_at_times)
    world.join()
    publish_traffic(world, random, events=entries * 3, seconds=300.0)
    world.run()
    assert world.needed_from[0] > 0
    settlements = sum(map(len, world.ledger[0][world.needed_from[0] :]))
    assert settlements <= 2 * entries + 60


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200_000), st.booleans()), max_size=60))
def test_restored_claims_judge_as_the_claims_themselves(events: list[tuple[int, int, bool]]) -> None:
    ttl = DedupeSettings(ttl_seconds=10.0)
    keys = [bytes([number]) * 16 for number in range(4)]
    lived = Dedupe(ttl.ttl_seconds, 1000, DedupeCounts())
    restoration = Restoration(0, ttl)
    for offset, (key, occurred_at, _) in enumerate(events):
        repeated = lived.claim(keys[key], occurred_at, offset)
        outcome = Outcome.DELIVERED if repeated is None else Outcome.DUPLICATE
        settled: Settled = (offset, Kind.TRACK, outcome, keys[key], occurred_at)
        assert restoration.take(offset, [settled]) == 1
    watermark = max((occurred_at for _, occurred_at, _ in events), default=0)
    for name in keys:
        for occurred_at in range(max(0, watermark - 10_000), watermark + 20_000, 2_500):
            assert restoration.dedupe.claim(name, occurred_at, 999) == lived.claim(name, occurred_at, 999)


def test_restoring_keeps_to_the_limit_of_all_partitions_together() -> None:
    counts = DedupeCounts()
    settings = DedupeSettings(ttl_seconds=1000.0, max_entries=100)
    restorations = [Restoration(0, settings, counts) for _ in range(3)]
    for number in range(900):
        key = number.to_bytes(16)
        settled: Settled = (number, Kind.TRACK, Outcome.DELIVERED, key, START_MS + number)
        restorations[number % 3].take(number, [settled])
    assert counts.entries <= 100
    process = DedupeCounts()
    for restoration in restorations:
        restoration.finish(900)
        restoration.dedupe.count_in(process)
    assert counts == DedupeCounts()
    assert process.entries + process.evicted_early == 900
    assert process.entries <= 100


def test_a_record_that_is_settled_in_part_is_planned_in_part() -> None:
    engine, now = Engine(POLICY, Random(1).random), Instant(0.0, START_MS)
    (partition,) = engine.assign([0], 1, now)
    restoration = Restoration(5, POLICY.dedupe)
    restoration.take(
        7,
        [
            (4, Kind.TRACK, Outcome.DELIVERED, None, None),
            (5, Kind.VISITOR_METADATA, Outcome.DELIVERED, None, START_MS),
            (6, Kind.TRACK, Outcome.DELIVERED, b"k" * 16, START_MS),
            (6, Kind.VISITOR_METADATA, Outcome.DUPLICATE, None, START_MS),
            (7, Kind.UNKNOWN, Outcome.DEAD_LETTERED, None, None),
        ],
    )
    restoration.finish(8)
    early = [record(decision("v"), offset) for offset in (4, 5)]
    engine.receive(early, now)
    assert engine.pending_records == 0, "nothing is taken in before the ledger is read"
    engine.restore(partition, restoration)
    engine.prove_membership(1e9)
    engine.receive([*early, record(decision("v"), 6), record(decision("w"), 7)], now)
    assert engine.accounts.planned == {Kind.TRACK: 1}
    assert engine.accounts.redeliveries == 2
    assert engine.accounts.records == 3
    assert positions(engine) == {0: 5}


def test_a_gap_holds_the_commit_until_it_is_in_the_ledger() -> None:
    engine, now = Engine(POLICY, Random(1).random), Instant(0.0, START_MS)
    (partition,) = engine.assign([0], 1, now)
    engine.restore(partition, Restoration(100, POLICY.dedupe))
    gap = Gap(100, 250)
    engine.lose(partition, gap)
    assert positions(engine) == {0: 100}
    assert engine.accounts.offsets_lost == 150
    assert not engine.is_quiet()
    engine.gap_written(partition, gap)
    assert positions(engine) == {0: 250}
    assert engine.is_quiet()
    assert engine.pending_records == 0
    engine.lose(partition, Gap(250, 260))
    engine.forget([0], now)
    engine.gap_written(partition, Gap(250, 260))
    assert engine.pending_records == 0


def test_no_request_starts_that_could_outlast_the_membership() -> None:
    """docs/architecture.md#the-fence: now + the time-out < the last proof + the session's time-out."""
    engine = Engine(POLICY, Random(1).random)
    ready(engine, [0], 1, Instant(0.0, START_MS), POLICY)
    engine.prove_membership(13.0)
    engine.receive([record(decision("v"))], Instant(1.0, START_MS))
    late = engine.poll(Instant(10.0, START_MS))
    assert late.attempts == []
    assert late.wake_at is None, "only a new proof lets sending go on"
    engine.prove_membership(43.0)
    assert engine.poll(Instant(10.0, START_MS)).attempts
    acknowledge(engine, [])


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-1, 50_000), st.integers(0, 5000)), max_size=30))
def test_nothing_that_is_needed_is_forgotten(records: list[tuple[int, int, int]]) -> None:
    window = LedgerWindow()
    for ledger_offset, (entries, newest_claim_ms, highest_offset) in enumerate(records):
        window.note(ledger_offset, entries, newest_claim_ms, highest_offset)
    window.begin_at(len(records))
    needed = [
        ledger_offset
        for ledger_offset, (_, newest_claim_ms, highest_offset) in enumerate(records)
        if newest_claim_ms >= 20_000 or highest_offset >= 3000
    ]
    begin = window.oldest_needed(3000, 20_000)
    assert begin is not None
    assert begin <= (needed[0] if needed else len(records))


@given(st.sets(st.tuples(st.integers(0, 20_000), st.sampled_from(Kind)), max_size=60))
def test_the_settled_kinds_of_each_offset_are_returned_once(settled: set[tuple[int, Kind]]) -> None:
    before = SettledBefore()
    for offset, kind in settled:
        before.add(offset, kind)
    for offset in sorted({offset for offset, _ in settled} | {3, 5000, 20_001}):
        assert before.kinds(offset) == {kind for of, kind in settled if of == offset}
    assert not before.kinds(10**9)
    assert not before, "what was passed is freed"


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(15))
def test_a_wall_clock_that_steps_costs_no_event_no_order_and_no_pace(seed: int) -> None:
    """Steps of up to two minutes in either direction: durations are measured with the monotonic clock."""
    random = Random(seed)
    world = World(POLICY, random, partitions=3, answering=slow_at_times)
    world.join()
    publish_traffic(world, random, events=150, seconds=40.0)

    def step() -> None:
        world.wall_step_ms = random.randint(-120_000, 120_000)

    for _ in range(8):
        world.at(random.uniform(0, 40), step)
    world.run()
    world.check_nothing_lost()
    world.check_spacing()
    world.check_order()
    assert Outcome.DEAD_LETTERED not in set(world.outcomes().values())
    sent = Counter((sight.partition, sight.offset) for sight in world.track_sights)
    assert set(sent.values()) == {1}
