"""Lanes: which lane starts next, and what failing lanes may take from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from flagpost_consumer.core.books.shares import PACED_SECONDS, Holding, Room, fair_share
from flagpost_consumer.core.policy import DeliverySettings
from flagpost_consumer.core.tracks.lanes import RETRY_SHARE, Lane, Lanes


@dataclass
class Item:
    name: str
    turn: float = 0.0
    not_before: float = 0.0
    is_held: bool = False
    size_bytes: int = 10


Line = Lanes[Item]


def lanes_of(*names: str, failing: int = 0) -> Line:
    """One lane for each name; the first `failing` of them have failed once and are ready again."""
    lanes: Line = Lanes(0.0)
    for place, name in enumerate(names):
        lanes.push(name, Item(name, turn=place), 0.0)
    for _ in range(failing):
        lane = taken(lanes, 100)
        lanes.failed(lane, alone=True)
        lanes.again(lane, 0.0, 0.5)
    lanes.advance(1.0)
    return lanes


def taken(lanes: Line, connections: int, now: float = 0.0) -> Lane[Item]:
    lane = lanes.take(now, connections)
    assert lane is not None
    return lane


def start(lanes: Line, connections: int, now: float = 1.0) -> list[str]:
    """Start all lanes that may start before an answer comes; returns their visitors."""
    started = []
    while (lane := lanes.take(now, connections)) is not None:
        started.append(lane.visitor_id)
    return started


@pytest.mark.parametrize(("connections", "most"), [(64, 8), (16, 2), (15, 1), (7, 1), (1, 1)])
def test_while_others_are_ready_failing_lanes_get_an_eighth_of_the_connections(
    connections: int, most: int
) -> None:
    lanes = lanes_of(*(f"f{n:02}" for n in range(30)), *(f"v{n:03}" for n in range(200)), failing=30)
    started = start(lanes, connections)[:200]
    assert sum(name.startswith("f") for name in started) == most


def test_while_others_are_ready_failing_lanes_get_an_eighth_of_the_requests() -> None:
    """Retries that fail at once hold few connections, and would still take every other request."""
    lanes = lanes_of(*(f"f{n:02}" for n in range(40)), *(f"v{n:03}" for n in range(200)), failing=40)
    names = []
    for _ in range(80):
        lane = taken(lanes, 64, 1.0)
        names.append(lane.visitor_id)
        lanes.answered(lane, 1.0)
    assert sum(name.startswith("f") for name in names) == 10


def test_the_first_retry_comes_after_seven_requests() -> None:
    lanes = lanes_of("f", *(f"v{n}" for n in range(20)), failing=1)
    names = start(lanes, 64)
    assert ["f", *names].index("f", 1) == RETRY_SHARE - 1


@pytest.mark.parametrize(
    ("answer", "can_show"), [("2xx", True), ("rejection", False), ("429", False), ("failure", False)]
)
def test_a_lane_can_show_that_an_endpoint_is_back_unless_its_latest_answer_was_no_2xx(
    answer: str, can_show: bool
) -> None:
    lanes = lanes_of("v")
    assert lanes.unfailed == 1
    for _ in range(2):
        lanes.push("v", Item("v"), 0.0)
    lane = taken(lanes, 1)
    if answer == "failure":
        lanes.failed(lane, alone=False)
    else:
        {"2xx": lanes.passed, "rejection": lanes.rejected, "429": lanes.throttled}[answer](lane)
    lanes.again(lane, 0.0, 1.0)
    assert lanes.unfailed == can_show
    again = taken(lanes, 1, 2.0)
    lanes.passed(again)
    lanes.answered(again, 2.0)
    assert lanes.unfailed == 1
    assert lanes.take_least_failed(2.0) is again


@pytest.mark.parametrize("says", [Lanes.rejected, Lanes.throttled])
def test_a_lane_whose_latest_answer_says_nothing_probes_after_those_that_had_none(
    says: Callable[[Line, Lane[Item]], None],
) -> None:
    lanes = lanes_of("young", "old")
    young = taken(lanes, 1)
    says(lanes, young)
    lanes.again(young, 0.0, 0.5)
    names = []
    while (probe := lanes.take_least_failed(1.0)) is not None:
        names.append(probe.visitor_id)
    assert names == ["old", "young"]


def test_a_rejected_lane_is_not_failing_and_a_throttled_one_stays_as_it_was() -> None:
    lanes = lanes_of("a", "b", failing=2)
    for says, failures in ((lanes.throttled, 1), (lanes.rejected, 0)):
        lane = taken(lanes, 100, 1.0)
        says(lane)
        assert (lane.failures, lane.failures_alone) == (failures, failures)


def test_while_no_other_lane_is_ready_failing_lanes_leave_half_of_the_connections() -> None:
    lanes = lanes_of(*(f"f{n:02}" for n in range(30)), failing=30)
    assert len(start(lanes, 16)) == 8
    assert lanes.due_at(1.0, 16) is None, "only an answer lets the next one go"
    lanes.push("new", Item("new"), 1.0)
    assert lanes.due_at(1.0, 16) == 1.0
    assert start(lanes, 16) == ["new"]


def test_a_lane_that_passes_is_one_of_the_others_again() -> None:
    lanes = lanes_of("f", "v", failing=1)
    for _ in range(2):
        lane = lanes.lane("f")
        assert lane is not None
        lanes.push("f", Item("f"), 1.0)
    first = taken(lanes, 8, 1.0)
    second = taken(lanes, 8, 1.0)
    assert [first.visitor_id, second.visitor_id] == ["v", "f"]
    lanes.passed(second)
    lanes.answered(second, 1.0)
    assert (second.failures, lanes.retries_in_flight, lanes.unfailed) == (0, 0, 2)


def test_the_probe_is_the_lane_that_failed_least() -> None:
    lanes = lanes_of("twice", "once", failing=2)
    lane = lanes.lane("twice")
    assert lane is not None
    lane.failures = 2
    names = []
    for _ in range(2):
        probe = lanes.take_least_failed(1.0)
        assert probe is not None
        names.append(probe.visitor_id)
    assert names == ["once", "twice"]
    lanes.push("never", Item("never", turn=1e12), 1.0)
    never = lanes.take_least_failed(1.0)
    assert never is not None
    assert never.visitor_id == "never"
    assert lanes.take_least_failed(1.0) is None


def test_among_lanes_that_failed_equally_often_the_youngest_delivery_is_the_probe() -> None:
    """A visitor that always fails has the oldest deliveries (docs/guarantees.md#progress-and-isolation)."""
    lanes = lanes_of("oldest", "older", "young")
    probes = [lanes.take_least_failed(1.0) for _ in range(3)]
    assert [probe.visitor_id for probe in probes if probe] == ["young", "older", "oldest"]


def test_of_deliveries_that_were_read_together_the_last_is_the_probe() -> None:
    """Those of a new owner's first read all have the same turn (docs/decisions/0044)."""
    lanes: Line = Lanes(1.0)
    for name in ("oldest", "older", "young"):
        lanes.push(name, Item(name, turn=60.0), 0.0)
    probes = [lanes.take_least_failed(1.0) for _ in range(3)]
    assert [probe.visitor_id for probe in probes if probe] == ["young", "older", "oldest"]


def test_a_lane_of_a_held_partition_or_one_that_must_wait_is_not_the_probe() -> None:
    lanes = lanes_of("free")
    lanes.push("held", Item("held", turn=8.0, is_held=True), 0.0)
    lanes.push("late", Item("removed", turn=9.0), 0.0)
    lanes.push("late", Item("late", turn=9.0, not_before=5.0), 0.0)
    lanes.remove(["late"], lambda item: item.name == "removed")
    for now, visitor in ((1.0, "free"), (5.0, "late")):
        probe = lanes.take_least_failed(now)
        assert probe is not None
        assert probe.visitor_id == visitor
        assert lanes.take_least_failed(now) is None


def test_a_probe_is_due_at_once_if_any_lane_is_ready_whether_it_has_failed_or_not() -> None:
    assert lanes_of("new").probe_due_at(1.0) == 1.0
    assert lanes_of("failed", failing=1).probe_due_at(1.0) == 1.0
    assert lanes_of("failed", "new", failing=1).probe_due_at(1.0) == 1.0


def test_a_probe_is_due_when_the_next_lane_has_waited_long_enough() -> None:
    lanes: Line = Lanes(1.0)
    assert lanes.probe_due_at(1.0) is None
    lanes.push("v", Item("v", not_before=7.0), 1.0)
    assert lanes.probe_due_at(1.0) == 7.0


def test_failures_in_a_row_of_a_lane_are_counted_until_it_passes() -> None:
    lanes = lanes_of("v")
    lane = taken(lanes, 8)
    for failures in (1, 2, 3):
        lanes.failed(lane, alone=False)
        assert (lane.failures, lane.failures_alone) == (failures, 0)
    lanes.passed(lane)
    assert lane.failures == 0


def test_a_visitor_whose_probe_was_rejected_probes_again_only_where_there_is_no_other() -> None:
    lanes = lanes_of("once", failing=1)
    lanes.push("poison", Item("poison", turn=1e12), 1.0)
    names = []
    for _ in range(2):
        probe = lanes.take_least_failed(1.0, {"poison"})
        assert probe is not None
        names.append(probe.visitor_id)
    assert names == ["once", "poison"]
    assert lanes.take_least_failed(1.0, {"poison"}) is None


def test_a_held_partitions_lane_is_skipped_until_it_is_released() -> None:
    lanes: Line = Lanes(0.0)
    held, free = Item("held", is_held=True), Item("free", turn=5.0)
    for item in (held, free):
        lanes.push(item.name, item, 0.0)
    assert start(lanes, 8) == ["free"]
    assert lanes.due_at(1.0, 8) is None
    assert lanes.unfailed == 1, "a held lane can tell nothing of Pendo"
    lanes.unpark(1.0)
    assert start(lanes, 8) == [], "it is still held"
    held.is_held = False
    lanes.unpark(1.0)
    assert lanes.unfailed == 2
    assert start(lanes, 8) == ["held"]


def test_the_waiting_deliveries_of_a_lane_are_counted_and_long_lanes_are_known() -> None:
    lanes: Line = Lanes(1.0, Holding(3, 1_000))
    for number in range(5):
        lanes.push("hot", Item(f"h{number}", size_bytes=100), 0.0)
    lanes.push("cold", Item("c"), 0.0)
    for number in range(3):
        lanes.push("large", Item(f"l{number}", size_bytes=600), 0.0)
    hot = lanes.lane("hot")
    assert hot is not None
    assert (hot.behind, hot.behind_bytes, lanes.waiting, lanes.unfailed) == (4, 400, 9, 3)
    assert set(lanes.long) == {"hot", "large"}
    cut = lanes.shorten(hot, Holding(10, 250))
    assert [item.name for item in cut] == ["h4", "h3"], "the newest go"
    assert (hot.behind, hot.behind_bytes, lanes.waiting) == (2, 200, 7)
    assert set(lanes.long) == {"large"}
    lanes.remove(["hot", "large"], lambda _: True)
    assert (hot.behind, hot.behind_bytes, lanes.waiting, lanes.unfailed) == (0, 0, 1, 1)
    assert lanes.long == {}
    taken_lane = taken(lanes, 8, 0.0)
    lanes.answered(taken_lane, 0.0)
    lanes.advance(2.0)
    assert lanes.unfailed == 0
    assert lanes.lane("cold") is None


def test_nothing_waits_behind_the_only_delivery_of_a_lane() -> None:
    lanes: Line = Lanes(0.0, Holding(0, 0))
    lanes.push("v", Item("first"), 0.0)
    lane = lanes.lane("v")
    assert lane is not None
    assert (lane.holding, lanes.long) == (Holding(0, 0), {})
    lanes.push("v", Item("second"), 0.0)
    assert set(lanes.long) == {"v"}, "one that waits may be too many"


def test_deliveries_behind_a_lane_s_first_are_counted_whatever_their_sizes_and_however_the_first_ends() -> (
    None
):
    lanes: Line = Lanes(0.0)
    for number, size_bytes in enumerate((1, 20, 300, 4_000)):
        lanes.push("v", Item(f"{number}", size_bytes=size_bytes), 0.0)
    lane = taken(lanes, 8)
    assert lane.holding == Holding(3, 4_320)
    lanes.answered(lane, 0.0)
    assert lane.holding == Holding(2, 4_300)
    lanes.discard_first(taken(lanes, 8), 0.0)
    assert lane.holding == Holding(1, 4_000)
    lanes.answered(taken(lanes, 8), 0.0)
    assert (lane.holding, lanes.unfailed) == (Holding(0, 0), 1)


@pytest.mark.parametrize(
    ("counts", "allowed"),
    [
        ([600] * 34, Holding(205, 10**9)),
        ([100] * 400, Holding(17, 10**9)),
        ([600], None),
        ([600, 600], None),
        ([], None),
    ],
)
def test_visitors_that_hold_much_get_fair_shares(counts: list[int], allowed: Holding | None) -> None:
    room = Room(Holding(7_000, 10**9), Holding(60, 200), Holding(60, 200), Holding(60, 200))
    assert room.share([Holding(count, 2_000) for count in counts]) == allowed


def test_the_room_is_a_part_of_the_limit_of_pending_deliveries() -> None:
    """docs/contract.md#settings: at the default settings no visitor with fewer than sixty waiting events is cut."""
    sixty = Holding(60, 60 * 67_108_864 // 20_000)
    assert Room.of(0.35, DeliverySettings()) == Room(Holding(7_000, 23_488_102), sixty, sixty, sixty)


@pytest.mark.parametrize(("interval", "most"), [(1.0, 5), (0.2, 25), (0.01, 39), (0.0, 39), (60.0, 4)])
def test_no_visitor_is_cut_below_what_may_be_sent_within_five_seconds(interval: float, most: int) -> None:
    """Except for visitors that are stuck: what they hold may stay for hours."""
    delivery = DeliverySettings(
        max_pending=100, max_pending_per_visitor=40, visitor_interval_seconds=interval
    )
    room = Room.of(0.35, delivery)
    assert (room.least.deliveries, room.least_stuck.deliveries) == (most, 4)


def test_a_lane_that_fails_repeatedly_while_others_pass_is_stuck() -> None:
    lanes: Line = Lanes(0.0, Holding(5, 1_000), Holding(1, 1_000))
    for number in range(4):
        lanes.push("v", Item(f"{number}"), 0.0)
    for now, alone in enumerate((True, False, True, False, True)):
        assert not lanes.long, "the failures of an outage do not count"
        lane = taken(lanes, 8, float(now))
        lanes.failed(lane, alone=alone)
        lanes.again(lane, float(now), 0.5)
    assert set(lanes.long) == {"v"}
    lane = taken(lanes, 8, 9.0)
    lanes.passed(lane)
    lanes.answered(lane, 9.0)
    assert not lanes.long, "one that passes ends it"


def test_a_lane_that_must_wait_long_while_others_pass_is_stuck_at_once() -> None:
    for delay, is_stuck in ((PACED_SECONDS, False), (PACED_SECONDS + 0.1, True)):
        lanes = lanes_of("v")
        lane = taken(lanes, 8)
        lanes.again(lane, 0.0, delay, alone=True)
        assert lanes.is_stuck(lane) is is_stuck
    lanes = lanes_of("v")
    lane = taken(lanes, 8)
    lanes.again(lane, 0.0, 300.0)
    assert not lanes.is_stuck(lane), "in an outage everybody waits"


@pytest.mark.parametrize(
    ("holdings", "room", "share"),
    [
        ([10, 10, 10], 30, 30),
        ([10, 10, 10], 29, 9),
        ([1, 1, 100], 50, 48),
        ([600] * 34, 10_000, 294),
        ([5, 5], 0, 0),
        ([], 7, 7),
    ],
)
def test_a_fair_share_fits_and_is_the_greatest_that_does(holdings: list[int], room: int, share: int) -> None:
    assert fair_share(holdings, room) == share
    if sum(holdings) > room:
        assert sum(min(held, share) for held in holdings) <= room
        assert sum(min(held, share + 1) for held in holdings) > room


def test_lanes_are_removed_at_the_end_of_their_rest_however_many_visitors_there_are() -> None:
    """A lane exists for one interval after its last answer, and not longer."""
    lanes: Line = Lanes(1.0)
    for number in range(10_000):
        now = number / 100
        lanes.push(f"v{number}", Item(f"v{number}"), now)
        lanes.answered(taken(lanes, 64, now), now)
        assert len(lanes) <= 101
    lanes.advance(101.0)
    assert len(lanes) == len(lanes._resting) == lanes.waiting == 0
