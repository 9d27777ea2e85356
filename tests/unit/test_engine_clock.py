"""A wrong local clock makes no event invalid or expired, as long as Kafka's timestamps show that it is wrong."""

from __future__ import annotations

from random import Random

import pytest

from engine_world import OK, START_MS, acknowledge, decision, positions, ready, record
from flagpost_consumer.core.books.stalls import Stall
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import CLOCK_SECONDS, READINGS_A_BATCH, Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning.clock_check import OLD_SECONDS, READINGS, ClockCheck
from flagpost_consumer.core.planning.plan import expired
from flagpost_consumer.core.policy import DecisionsSettings, DeliverySettings, Policy
from flagpost_consumer.core.records import Gap, Record

POLICY = Policy(decisions=DecisionsSettings(visitor_metadata=False))
DAY = 86_400.0


class Process:
    """An engine whose wall clock is `wrong_seconds` ahead of the right time."""

    def __init__(self, wrong_seconds: float, policy: Policy = POLICY) -> None:
        self.wrong_seconds = wrong_seconds
        self.engine = Engine(policy, Random(1).random)
        self.now = 0.0
        ready(self.engine, [0, 1], 8, self.instant, policy)
        self.now = 10.0
        self.reasons: dict[tuple[int, int], Reason] = {}
        self._next = [0, 0]

    @property
    def instant(self) -> Instant:
        return Instant(self.now, START_MS + int((self.now + self.wrong_seconds) * 1000))

    def event(
        self, visitor: str, *, partition: int = 0, age: float = 0.0, stamped: float = 0.0, fresh: bool = True
    ) -> Record:
        """The record of an event that is `age` seconds old; its timestamp in Kafka is `stamped` seconds old."""
        at = START_MS + int((self.now - age) * 1000)
        offset = self._next[partition]
        self._next[partition] += 1
        made = record(decision(visitor, f"flag{offset}", occurred_at=at), offset, partition)
        timestamp_ms = START_MS + int((self.now - stamped) * 1000)
        return made._replace(timestamp_ms=timestamp_ms, fresh=fresh)

    def receive(self, *records: Record) -> None:
        self.engine.receive(records, self.instant)
        self.go()

    def go(self, seconds: float = 0.0) -> None:
        self.now += seconds
        while True:
            actions = self.engine.poll(self.instant)
            for attempt in actions.attempts:
                self.engine.answered(attempt, OK, self.instant)
            for settlement in actions.settlements:
                made = settlement.delivery.record
                self.reasons[made.partition, made.offset] = settlement.ending.reason
            acknowledge(self.engine, actions.settlements)
            if not actions.attempts and not actions.settlements:
                self.wake_at = actions.wake_at
                return


def test_a_backlog_does_not_hide_that_a_clock_is_behind() -> None:
    """The backlog's records are minutes old: compared with them, a clock that is seven minutes behind seems right."""
    process = Process(wrong_seconds=-420.0)
    process.receive(*(process.event(f"v{number}", partition=1) for number in range(3)))
    backlog = [process.event(f"v{number}", age=240.0, stamped=240.0, fresh=False) for number in range(40)]
    process.receive(*backlog, process.event("v", fresh=False))
    assert set(process.reasons.values()) == {Reason.OK}
    assert process.engine.stalled == {0: Stall.CLOCK, 1: Stall.CLOCK}


def test_with_a_clock_that_is_behind_no_event_is_too_far_ahead() -> None:
    """Before the fix, every event was dead-lettered as `invalid` while the clock was over five minutes behind."""
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(40)))
    assert process.reasons == {}
    assert process.engine.stalled == {0: Stall.CLOCK}
    assert process.engine.poll(process.instant).partitions_paused == {0}
    assert process.wake_at == process.now + CLOCK_SECONDS, "nobody else would look again"
    process.go(250.0)
    assert process.reasons == {}
    process.go(60.0)  # now the wrong clock, too, finds the events within the allowance
    assert set(process.reasons.values()) == {Reason.OK}
    assert len(process.reasons) == 40
    assert process.engine.stalled == {}


def test_services_whose_clock_was_ahead_stop_others_for_a_while_only() -> None:
    """Before the fix, nothing more was read, so the readings of these services counted for 54 minutes: until their
    events were not too far ahead any more.
    """
    process = Process(wrong_seconds=0.0)
    process.receive(
        *(process.event(f"v{n}", partition=n % 2, age=-3500, stamped=-3500) for n in range(READINGS + 8))
    )
    assert process.engine.stalled == {0: Stall.CLOCK, 1: Stall.CLOCK}
    assert process.engine.poll(process.instant).partitions_paused == {0, 1}
    for _ in range(READINGS // READINGS_A_BATCH):
        process.go(OLD_SECONDS + 1.0)
        assert process.engine.poll(process.instant).partitions_paused == set(), "a little is read"
        process.receive(*(process.event(f"w{n}", partition=n % 2) for n in range(READINGS_A_BATCH)))
    process.go(CLOCK_SECONDS)
    assert process.engine.stalled == {}
    assert set(process.reasons.values()) == {Reason.INVALID, Reason.OK}


def test_readings_are_old_ten_seconds_after_the_latest() -> None:
    check = ClockCheck(300.0)
    assert check.is_old(Instant(0.0, START_MS)), "there are none"
    check.note(record(decision("v"), 0), Instant(5.0, START_MS))
    assert not check.is_old(Instant(5.0 + OLD_SECONDS, START_MS))
    assert check.is_old(Instant(5.001 + OLD_SECONDS, START_MS))


def test_while_the_clock_is_wrong_little_is_read() -> None:
    policy = Policy(delivery=DeliverySettings(max_pending=160), decisions=POLICY.decisions)
    process = Process(wrong_seconds=-3600.0, policy=policy)
    process.receive(*(process.event(f"v{n}") for n in range(8)))
    for turn in range(3):
        assert process.engine.poll(process.instant).partitions_paused == {0}
        process.go(OLD_SECONDS + 1.0)
        if process.engine.poll(process.instant).partitions_paused:
            break
        process.receive(*(process.event(f"w{turn}.{n}") for n in range(8)))
    assert len(process.engine._clock_waits[process.engine._partitions[0]]) == 16, "a tenth is enough"
    assert process.reasons == {}
    process.wrong_seconds = 0.0
    process.go(CLOCK_SECONDS)
    assert list(process.reasons.values()) == [Reason.OK] * 16


@pytest.mark.parametrize("is_written", [False, True])
def test_a_gap_behind_records_that_wait_for_the_clock_loses_none_of_them(is_written: bool) -> None:
    """Before the fix, the gap moved the position behind them, so they were taken for records seen before."""
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(10)))
    partition = process.engine.current(0)
    assert partition is not None
    gap = Gap(10, 12)
    process.engine.lose(partition, gap)
    if is_written:
        process.engine.gap_written(partition, gap)
    process._next[0] = 12
    process.receive(process.event("behind"))
    assert positions(process.engine)[0] == 0
    process.wrong_seconds = 0.0
    process.go(CLOCK_SECONDS)
    assert len(process.reasons) == 11, "all were sent"
    assert process.engine.accounts.offsets_lost == 2
    if not is_written:
        assert positions(process.engine)[0] == 10
        process.engine.gap_written(partition, gap)
    assert positions(process.engine)[0] == 13


def test_a_clock_that_is_set_right_is_believed_at_once() -> None:
    process = Process(wrong_seconds=-3600.0)
    process.receive(*(process.event(f"v{number}") for number in range(40)))
    assert process.reasons == {}
    process.wrong_seconds = 0.0
    process.go(1.0)
    assert set(process.reasons.values()) == {Reason.OK}


def test_a_clock_that_is_ahead_expires_nothing() -> None:
    """Before the fix, a clock that was a week ahead dead-lettered every event as expired."""
    process = Process(wrong_seconds=8 * DAY)
    process.receive(*(process.event(f"v{number}") for number in range(40)))
    assert process.reasons == {}
    assert process.engine.stalled == {0: Stall.CLOCK}
    process.wrong_seconds = 0.0
    process.go(1.0)
    assert set(process.reasons.values()) == {Reason.OK}


def test_events_that_wait_in_a_lane_do_not_expire_when_the_clock_jumps() -> None:
    process = Process(wrong_seconds=0.0)
    process.receive(*(process.event(f"v{number}") for number in range(5)))
    hot = [process.event("hot"), process.event("hot")]
    process.receive(*hot)
    process.wrong_seconds = 8 * DAY
    process.go(2.0)
    process.wrong_seconds = 0.0
    process.go(6.0)
    assert set(process.reasons.values()) == {Reason.OK}
    assert len(process.reasons) == 7


def test_a_backlog_that_is_really_old_expires() -> None:
    process = Process(wrong_seconds=0.0)
    old = [process.event(f"v{n}", age=8 * DAY, stamped=8 * DAY, fresh=False) for n in range(40)]
    process.receive(*old)
    assert set(process.reasons.values()) == {Reason.EXPIRED}
    assert len(process.reasons) == 40


def test_one_service_whose_clock_is_wrong_is_judged_by_the_others() -> None:
    """docs/contract.md#settings, delivery.max_future_seconds."""
    process = Process(wrong_seconds=0.0)
    process.receive(*(process.event(f"v{number}") for number in range(40)))
    process.receive(process.event("ahead", age=-3600.0, stamped=-3600.0))
    assert process.reasons[0, 40] is Reason.INVALID


def test_a_wrong_time_in_the_event_alone_is_the_events_fault() -> None:
    process = Process(wrong_seconds=0.0)
    process.receive(*(process.event(f"v{number}", age=-3600.0) for number in range(40)))
    assert set(process.reasons.values()) == {Reason.INVALID}


def test_the_first_batch_is_held_while_nothing_is_known_about_the_clock() -> None:
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(3)))
    assert process.reasons == {}


def test_the_other_partition_goes_on_and_order_is_kept_in_the_held_one() -> None:
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(10)))
    process.receive(process.event("late", age=590.0), process.event("w", partition=1, age=590.0))
    assert process.reasons == {(1, 0): Reason.OK}, "by the wrong clock it is ten seconds ahead: allowed"
    process.go(400.0)
    assert set(process.reasons) == {(1, 0), *((0, offset) for offset in range(11))}


@pytest.mark.parametrize("drain", [True, False])
def test_records_held_for_the_clock_are_forgotten_with_their_partition(drain: bool) -> None:
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(10)))
    if drain:
        process.engine.drain(process.instant)
    else:
        process.engine.revoke([0], process.instant)
    process.go(1000.0)
    process.engine.forget([0], process.instant)
    assert (process.reasons, process.engine.pending_records, process.engine.stalled) == ({}, 0, {})


def test_a_partition_that_is_lost_is_no_longer_stalled() -> None:
    process = Process(wrong_seconds=-600.0)
    process.receive(*(process.event(f"v{number}") for number in range(10)))
    process.engine.forget([0], process.instant)
    assert process.engine.stalled == {}


def test_records_without_kafkas_timestamp_are_not_compared_with_the_clock() -> None:
    check = ClockCheck(300.0)
    now = Instant(10.0, START_MS)
    for number in range(40):
        made = record(decision(f"v{number}"), number)
        check.note(made._replace(timestamp_ms=0, fresh=True), now)
    assert not check.doubts(expired(60.0), now)
    for number in range(40):
        made = record(decision(f"v{number}"), number)
        check.note(made._replace(timestamp_ms=1, fresh=True), now)
    assert check.doubts(expired(60.0), now), "by their timestamps it is 1970"
