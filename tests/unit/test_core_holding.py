"""Settlements that Kafka does not accept hold their own partition and nothing else (docs/guarantees.md#isolation)."""

from __future__ import annotations

from random import Random

from engine_steps import damaged, engine_with
from engine_world import OK, START_MS, TIMED_OUT, acknowledge, decision, ready, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.books.stalls import Stall
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import UNWRITTEN_SHARE, Engine
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DecisionsSettings, DeliverySettings, EndpointLimits, Policy
from flagpost_consumer.core.tracks.track_sending import TrackAttempt

POLICY = Policy(
    decisions=DecisionsSettings(visitor_metadata=False),
    delivery=DeliverySettings(visitor_interval_seconds=0.1, max_pending=80, max_attempts=1),
    limits=EndpointLimits(max_connections=4),
)
LIMIT = 2 * 4


def instant(seconds: float) -> Instant:
    return Instant(seconds, START_MS + int(seconds * 1000))


class Run:
    """An engine whose requests are answered at once; Kafka accepts the settlements of some partitions only."""

    def __init__(self, *partitions: int) -> None:
        self.engine = Engine(POLICY, Random(1).random)
        ready(self.engine, partitions, 8, instant(0.0), POLICY)
        self.deaf: set[int] = set()
        """Partitions whose settlements Kafka does not accept."""
        self.untaken: list[Settlement] = []
        self.sent: list[str] = []
        self.paused: frozenset[int] = frozenset()
        self.now = 1.0
        self._offsets = dict.fromkeys(partitions, 0)

    def publish(self, partition: int, visitor: str) -> None:
        offset = self._offsets[partition]
        self._offsets[partition] = offset + 1
        self.engine.receive([record(decision(visitor), offset, partition)], instant(self.now))

    def publish_damaged(self, partition: int) -> None:
        offset = self._offsets[partition]
        self._offsets[partition] = offset + 1
        self.engine.receive([damaged(offset, partition)], instant(self.now))

    def go(self, seconds: float = 0.0, answer: Answer = OK) -> None:
        """Let time pass, and do what the engine asks for until it asks for nothing."""
        self.now += seconds
        while True:
            actions = self.engine.poll(instant(self.now))
            self.paused = actions.partitions_paused
            for attempt in actions.attempts:
                assert isinstance(attempt, TrackAttempt)
                self.sent.append(attempt.lane.visitor_id)
                self.engine.answered(attempt, answer, instant(self.now))
            for settlement in actions.settlements:
                if settlement.delivery.partition.number in self.deaf:
                    self.untaken.append(settlement)
                else:
                    acknowledge(self.engine, [settlement])
            if not actions.attempts and not actions.settlements:
                return

    def take_all(self) -> None:
        """Let Kafka accept all settlements, also those that it has not accepted so far."""
        self.deaf = set()
        untaken, self.untaken = self.untaken, []
        acknowledge(self.engine, untaken)


def test_a_ledger_partition_without_a_leader_holds_its_own_partition_only() -> None:
    """Before the fix, no partition sent anything any more after a second."""
    run = Run(0, 1)
    run.deaf = {0}
    run.publish(0, "a0")
    run.go()
    run.go(2.0)
    for number in range(30):
        run.publish(0, f"a{number + 1}")
        run.publish(1, f"b{number}")
        run.go(0.2)
    assert sorted(run.sent) == sorted(["a0", *(f"b{number}" for number in range(30))])
    assert run.paused == {0}
    run.take_all()
    run.go(1.0)
    assert {f"a{number}" for number in range(31)} <= set(run.sent)
    assert run.paused == frozenset()


def test_no_partition_sends_when_kafka_takes_nothing_at_all() -> None:
    """After a crash, what is unacknowledged is sent again: at most twice the connections, and what was in flight."""
    run = Run(*range(8))
    run.deaf = set(range(8))
    for second in range(20):
        for partition in range(8):
            for number in range(5):
                run.publish(partition, f"v{partition}-{second}-{number}")
        run.go(0.5)
    assert len(run.sent) <= LIMIT + 4
    assert run.engine.unacknowledged == len(run.sent)


def test_a_held_partition_no_longer_counts_for_the_others_once_they_are_acknowledged() -> None:
    run = Run(0, 1)
    run.deaf = {0}
    for number in range(LIMIT + 1):
        run.publish(0, f"a{number}")
    run.go()
    held = len(run.sent)
    assert held == LIMIT + 1, "up to the bound, and what a check lets start"
    run.publish(1, "b")
    run.publish_damaged(1)
    run.go(1.5)
    assert run.sent[held:] == ["b"]


def test_a_dead_letter_that_pendo_cannot_have_taken_stops_no_sending() -> None:
    """Before the fix, one dead letter that Kafka did not accept stopped all sending after a second."""
    run = Run(0)
    run.deaf = {0}
    run.publish(0, "refused")
    run.go(answer=Answer(400))
    run.deaf = set()
    for number in range(10):
        run.publish(0, f"v{number}")
        run.go(1.0)
    assert len(run.sent) == 11
    assert run.engine.unacknowledged == 0
    assert run.paused == frozenset()


def test_a_dead_letter_that_pendo_may_have_taken_holds_its_partition() -> None:
    run = Run(0, 1)
    run.publish(1, "b")
    run.go()
    run.publish(0, "slow")
    run.go(answer=TIMED_OUT)
    run.publish(1, "c")
    run.go()
    run.deaf = {0}
    for _ in range(40):
        run.go(3.0, answer=TIMED_OUT)
        run.publish(1, f"d{run.now}")
        run.go()
    assert run.untaken, "its attempts are exhausted"
    assert run.engine.unacknowledged == 1
    assert run.paused == {0}


def test_settlements_that_pile_up_pause_the_intake_of_their_partition_only() -> None:
    """Damaged records become dead letters; a partition that holds over an eighth of `max_pending` is not read."""
    run = Run(0, 1)
    run.deaf = {0}
    for _ in range(12):
        run.publish_damaged(0)
        run.go(0.1)
    assert run.paused == {0}
    assert not run.engine.poll(instant(run.now)).intake_paused
    run.publish(1, "b")
    run.go(1.0)
    assert run.sent == ["b"]
    run.take_all()
    run.go(0.1)
    assert run.paused == frozenset()


def test_a_partition_is_read_while_no_more_than_an_eighth_of_the_limit_is_unwritten() -> None:
    most = POLICY.delivery.max_pending // UNWRITTEN_SHARE
    run = Run(0)
    run.deaf = {0}
    paused = []
    for _ in range(most + 2):
        run.publish_damaged(0)
        run.go()
        paused.append(run.paused == {0})
    assert paused == [False] * most + [True, True]
    for settlement, is_paused in zip(run.untaken, (True, False), strict=False):
        acknowledge(run.engine, [settlement])
        run.go()
        assert (run.paused == {0}) is is_paused


def test_with_the_smallest_limit_one_unwritten_settlement_stalls_nothing_and_two_do() -> None:
    """An eighth of four is less than one; one settlement may always be unwritten."""
    engine = engine_with(Policy(delivery=DeliverySettings(max_pending=4)))
    stalled = []
    for offset in range(2):
        engine.receive([damaged(offset)], instant(1.0))
        stalled.append(engine.stalled)
    assert stalled == [{}, {0: Stall.LEDGER}]


def test_settlements_that_piled_up_do_not_pause_the_next_assignment_of_their_partition() -> None:
    run = Run(0)
    run.deaf = {0}
    for _ in range(12):
        run.publish_damaged(0)
    run.go()
    assert run.paused == {0}
    run.engine.forget([0], instant(run.now))
    ready(run.engine, [0], 8, instant(run.now), POLICY)
    run.go()
    assert run.paused == frozenset()


def test_a_late_acknowledgement_of_a_returned_delivery_releases_nothing_twice() -> None:
    run = Run(0, 1)
    run.deaf = {0}
    run.publish(0, "a")
    run.go()
    run.go(2.0)
    assert run.paused == {0}
    run.engine.forget([0], instant(run.now))
    ready(run.engine, [0], 8, instant(run.now), POLICY)
    run.take_all()
    run.go(1.0)
    run._offsets[0] = 0
    run.publish(0, "a")
    run.go(1.0)
    assert run.sent == ["a", "a"]
    assert (run.engine.unacknowledged, run.paused) == (0, frozenset())
