"""One id whose metadata hangs, or comes too fast, does not fill the memory that all ids share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from engine_steps import metadata
from engine_world import OK, TIMED_OUT, World
from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.books.shares import Holding, Room
from flagpost_consumer.core.metadata.holdings import Holdings
from flagpost_consumer.core.metadata.order import SettlingOrder
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_consumer.core.policy import DeliverySettings, MetadataSettings, Policy

POLICY = Policy(
    delivery=DeliverySettings(max_pending=100, max_pending_per_visitor=60, visitor_interval_seconds=0.1),
    metadata=MetadataSettings(linger_seconds=0.0),
)


def room_of(whole: Holding, least: Holding) -> Room:
    return Room(whole, least, least, least)


def item(who: str, flying: int = 0) -> Item[None]:
    made: Item[None] = Item(None, Metadata("visitor", "custom", who, {"x": 1}), 0, 0, 0, missing=False)
    made.flying = flying
    return made


def test_nothing_is_left_of_deliveries_that_have_ended() -> None:
    draw = Random(4)
    holdings: Holdings[None] = Holdings(room_of(Holding(10, 10**9), Holding(5, 10**9)))
    held: list[Item[None]] = []
    for _ in range(2_000):
        if draw.random() < 0.55 or not held:
            held.append(item(draw.choice("abcd")))
            holdings.add(held[-1], draw.randrange(1, 100), 0.0)
        else:
            gone = held.pop(draw.randrange(len(held)))
            holdings.discard(gone)
            holdings.discard(gone)
        assert len(holdings) == len({each.metadata.target_id for each in held})
    for left in held:
        holdings.discard(left)
    assert len(holdings) == 0
    assert list(holdings.beyond_fair_share(0.0)) == []


def holdings_of(room: Room, **counts: int) -> tuple[Holdings[None], dict[str, list[Item[None]]]]:
    """This many deliveries of ten bytes for each id; the newest one of the id "flying" is in flight."""
    holdings: Holdings[None] = Holdings(room)
    items = {who: [item(who) for _ in range(count)] for who, count in counts.items()}
    for who, of_one in items.items():
        of_one[-1].flying = int(who == "flying")
        for each in of_one:
            holdings.add(each, 10, 0.0)
    return holdings, items


def test_the_newest_deliveries_of_the_largest_holders_are_cut_except_those_in_flight() -> None:
    room = room_of(Holding(12, 10_000), Holding(2, 10_000))
    holdings, items = holdings_of(room, small=3, flying=10, other=8)
    gone = list(holdings.beyond_fair_share(0.0))
    assert gone == [*items["flying"][8:5:-1], *items["other"][7:6:-1]]
    assert list(holdings.beyond_fair_share(0.0)) == []


def test_deliveries_in_flight_stay_however_many_they_are() -> None:
    """A request may have a value of each of an id's deliveries."""
    holdings, items = holdings_of(room_of(Holding(12, 10**9), Holding(2, 10**9)), carried=10, other=10)
    for each in items["carried"][1:]:
        each.flying = 1
    assert list(holdings.beyond_fair_share(0.0)) == [items["carried"][0], *items["other"][9:6:-1]]


def test_an_id_with_many_bytes_is_limited_by_bytes() -> None:
    room = room_of(Holding(1000, 80), Holding(100, 30))
    holdings, items = holdings_of(room, small=3, first=7, second=7)
    assert list(holdings.beyond_fair_share(0.0)) == [*items["first"][6:4:-1], *items["second"][6:4:-1]]


def test_an_id_keeps_the_bytes_that_any_id_may_always_have_and_its_first_delivery() -> None:
    room = room_of(Holding(1000, 30), Holding(100, 30))
    holdings, items = holdings_of(room, one=4)
    assert list(holdings.beyond_fair_share(0.0)) == []
    for gone in items["one"][:2]:
        holdings.discard(gone)
    came = [item("one") for _ in range(3)]
    for each in came[:2]:
        holdings.add(each, 10, 0.0)
    assert list(holdings.beyond_fair_share(0.0)) == []
    holdings.add(came[2], 10, 0.0)
    assert list(holdings.beyond_fair_share(0.0)) == [came[2]]


def test_an_id_that_holds_little_by_now_has_no_share_of_what_the_others_hold() -> None:
    room = room_of(Holding(12, 10**9), Holding(2, 10**9))
    holdings, items = holdings_of(room, once=5, one=20)
    for gone in items["once"][3:]:
        holdings.discard(gone)
    assert list(holdings.beyond_fair_share(0.0)) == items["one"][:12:-1]


def test_a_backlog_of_many_ids_with_a_few_deliveries_each_is_no_hoard() -> None:
    """Before the fix, ten thousand visitors with five flags each lost a third of their values."""
    room = room_of(Holding(30, 10**9), Holding(5, 10**9))
    holdings, _ = holdings_of(room, **{f"v{number}": 6 for number in range(100)})
    assert list(holdings.beyond_fair_share(0.0)) == []


def test_deliveries_that_have_just_come_are_not_a_hoard() -> None:
    """In a backlog, all values of an id come at once. Before the fix, the newest ones became dead letters at once."""
    room = room_of(Holding(12, 10**9), Holding(5, 10**9))
    holdings, items = holdings_of(room, one=10, other=10)
    assert list(holdings.beyond_fair_share(-0.1)) == []
    assert list(holdings.beyond_fair_share(0.0)) == [*items["one"][9:6:-1], *items["other"][9:6:-1]]


def test_one_id_alone_may_fill_the_room_and_no_more() -> None:
    room = room_of(Holding(12, 10**9), Holding(5, 10**9))
    holdings, items = holdings_of(room, alone=20, small=3)
    assert list(holdings.beyond_fair_share(0.0)) == items["alone"][19:12:-1]


def test_an_id_whose_metadata_hangs_stops_nobody() -> None:
    """Values of a field are settled in order. Before the fix, those that followed a hanging one filled the memory."""

    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        hangs = isinstance(attempt, MetadataAttempt) and "hangs" in attempt.batch.ids
        return TIMED_OUT if hangs else OK, 0.0, 0.01

    world = World(POLICY, Random(1), answering=answering, batch=10)
    world.join()
    for number in range(300):
        world.publish_at(2.0 + number / 10, metadata("hangs", number, plan=number))
        world.publish_at(2.0 + number / 10, metadata(f"v{number}", number, plan=number))
    world.run(until=60.0)
    reasons = world.reasons(Kind.VISITOR_METADATA)
    by_visitor = {True: [], False: []}  # type: dict[bool, list[Reason]]
    for (partition, offset), reason in reasons.items():
        by_visitor[world.log[partition][offset].key == b"hangs"].append(reason)
    assert by_visitor[False] == [Reason.OK] * 300
    assert set(by_visitor[True]) <= {Reason.VISITOR_BACKLOG, Reason.SUPERSEDED, Reason.ATTEMPTS_EXHAUSTED}
    assert Reason.VISITOR_BACKLOG in by_visitor[True]


@pytest.mark.parametrize("written_first", [True, False])
def test_deliveries_after_one_that_was_given_up_wait_for_its_dead_letter(written_first: bool) -> None:
    """After a crash, a record without its dead letter is read again: its older value must not be sent last."""
    order: SettlingOrder[None] = SettlingOrder()
    first, given_up, last = (item("v") for _ in range(3))
    for each in (first, given_up, last):
        each.open_fields = 1
        order.begin(each)
    given_up.given_up = True
    last.open_fields, last.accepted = 0, True
    order.end(last)
    steps: list[Callable[[], None]] = [partial(order.acknowledge, given_up), partial(end, order, first)]
    for step in steps if written_first else reversed(steps):
        assert last not in [settled for settled, _ in order.settled]
        step()
    assert [settled for settled, _ in order.settled] == [first, last]
    assert len(order) == 0


def end(order: SettlingOrder[None], ended: Item[None]) -> None:
    ended.open_fields, ended.accepted = 0, True
    order.end(ended)
