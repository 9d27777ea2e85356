"""Metadata of one id that hangs, or comes too fast, does not fill the memory of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from engine_steps import metadata
from flagpost_consumer.core.mapping import Metadata
from flagpost_consumer.core.metadata_holdings import Holdings
from flagpost_consumer.core.metadata_items import Item
from flagpost_consumer.core.metadata_order import SettlingOrder
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.policy import DeliverySettings, MetadataSettings, Policy
from flagpost_consumer.core.records import Attempt
from flagpost_consumer.core.verdict import Answer
from simulation import OK, TIMED_OUT, World

POLICY = Policy(
    delivery=DeliverySettings(max_pending=100, max_pending_per_visitor=60, visitor_interval_seconds=0.1),
    metadata=MetadataSettings(linger_seconds=0.0),
)


def item(who: str, flying: int = 0) -> Item[None]:
    made: Item[None] = Item(None, Metadata("visitor", "custom", who, {"x": 1}), 0, 0, 0, missing=False)
    made.flying = flying
    return made


def test_the_sums_are_those_of_what_is_held() -> None:
    draw = Random(4)
    holdings: Holdings[None] = Holdings()
    held: list[tuple[Item[None], int]] = []
    for _ in range(2_000):
        if draw.random() < 0.55 or not held:
            entry = item(draw.choice("abcd")), draw.randrange(1, 100)
            held.append(entry)
            holdings.add(*entry)
        else:
            gone, _ = held.pop(draw.randrange(len(held)))
            holdings.discard(gone)
            holdings.discard(gone)
        of = {who: [size for each, size in held if each.metadata.target_id == who] for who in "abcd"}
        assert holdings.behind == sum(max(0, len(sizes) - 1) for sizes in of.values())
        assert holdings.behind_bytes == sum(sum(sizes[1:]) for sizes in of.values())
    for left, _ in held:
        holdings.discard(left)
    assert (len(holdings), holdings.behind, holdings.behind_bytes) == (0, 0, 0)


def test_the_newest_of_whoever_holds_most_go_but_for_what_is_in_flight() -> None:
    holdings: Holdings[None] = Holdings()
    small = [item("small") for _ in range(3)]
    large = [item("large", flying=int(number == 9)) for number in range(10)]
    for each in (*small, *large):
        holdings.add(each, 10)
    assert list(holdings.beyond_fair_share(room=11, room_bytes=10_000)) == []
    assert list(holdings.beyond_fair_share(room=6, room_bytes=10_000)) == large[8:3:-1]
    assert (holdings.behind, holdings.behind_bytes) == (6, 60)
    assert list(holdings.beyond_fair_share(room=6, room_bytes=40)) == large[3:1:-1]


def test_an_id_whose_metadata_hangs_stops_nobody() -> None:
    """Values of a field are settled in order: before, all that followed a hanging one filled the memory."""

    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        hangs = attempt.batch is not None and "hangs" in attempt.batch.ids
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
def test_what_follows_a_delivery_that_was_given_up_waits_for_its_dead_letter(written_first: bool) -> None:
    """A crash would plan the dead letter's record again: its older value must not be the last that is sent."""
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
