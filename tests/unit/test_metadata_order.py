"""The order in which metadata deliveries that set the same fields are settled."""

from __future__ import annotations

import pytest

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.order import SettlingOrder
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.planning.mapping import Metadata

Order = SettlingOrder[None]


def metadata(*names: str, visitor: str = "v", group: str = "custom") -> Metadata:
    return Metadata("visitor", group, visitor, dict.fromkeys(names, 1))


def begin(order: Order, *names: str, partition: int = 0) -> Item[None]:
    begun: Item[None] = Item(None, metadata(*names), partition, 0, 0, missing=False, open_fields=len(names))
    order.begin(begun)
    return begun


def end(order: Order, *items: Item[None], reason: Reason | None = None) -> None:
    """End all fields of these deliveries: accepted, unless a reason is given."""
    for item in items:
        item.open_fields = 0
        if reason is None:
            item.accepted = True
        else:
            item.endings.append(Ending(reason))
        order.end(item)


def settled(order: Order) -> list[Item[None]]:
    return [item for item, _ in order.settled]


def test_a_delivery_waits_for_the_last_one_before_it_of_each_of_its_fields() -> None:
    order: Order = SettlingOrder()
    first, second, both = begin(order, "p"), begin(order, "q"), begin(order, "p", "q")
    end(order, both, first)
    assert settled(order) == [first]
    end(order, second)
    assert settled(order) == [first, second, both]
    assert len(order) == 0


def test_two_fields_that_the_same_delivery_set_before_are_waited_for_once() -> None:
    order: Order = SettlingOrder()
    first, second = begin(order, "p", "q"), begin(order, "p", "q")
    end(order, second)
    assert settled(order) == []
    end(order, first)
    assert settled(order) == [first, second]


def test_a_delivery_that_has_not_ended_is_not_settled_with_the_one_before_it() -> None:
    order: Order = SettlingOrder()
    first, second, third = (begin(order, "p") for _ in range(3))
    end(order, third, first)
    assert settled(order) == [first]
    end(order, second)
    assert settled(order) == [first, second, third]


@pytest.mark.parametrize("is_returned_first", [True, False])
def test_a_delivery_is_handed_back_if_one_of_those_that_it_follows_was(is_returned_first: bool) -> None:
    order: Order = SettlingOrder()
    gone, kept, both = begin(order, "p"), begin(order, "q"), begin(order, "p", "q")
    follower = begin(order, "q")
    end(order, both, follower)
    if is_returned_first:
        order.give_back([gone])
        end(order, kept)
    else:
        end(order, kept)
        order.give_back([gone])
    assert settled(order) == [kept]
    assert order.returned == [both, follower], "and what follows it"
    assert len(order) == 0


def test_a_delivery_handed_back_with_another_partition_takes_no_other_with_it() -> None:
    order: Order = SettlingOrder()
    gone, kept = begin(order, "p", partition=1), begin(order, "p", partition=0)
    end(order, kept)
    order.give_back([gone])
    assert (settled(order), order.returned) == ([kept], [])


def test_a_delivery_that_is_handed_back_while_it_waits_lets_no_later_one_go_too_early() -> None:
    order: Order = SettlingOrder()
    first, gone, last = (begin(order, "p") for _ in range(3))
    order.give_back([gone])
    end(order, last)
    assert (settled(order), order.returned) == ([], [])
    end(order, first)
    assert (settled(order), order.returned) == ([first], [last])


def test_a_delivery_that_is_not_accepted_blocks_until_its_dead_letter_is_written() -> None:
    order: Order = SettlingOrder()
    dead, other = begin(order, "p"), begin(order, "p")
    end(order, dead, reason=Reason.REJECTED)
    end(order, other)
    assert settled(order) == [dead]
    order.acknowledge(dead)
    assert settled(order) == [dead, other]


@pytest.mark.parametrize(
    ("asked", "is_held"),
    [
        (metadata("p"), True),
        (metadata("q", "p"), True),
        (metadata("q"), False),
        (metadata("p", visitor="w"), False),
        (metadata("p", group="agent"), False),
    ],
)
def test_a_field_is_held_while_a_delivery_that_sets_it_is_not_settled(asked: Metadata, is_held: bool) -> None:
    order: Order = SettlingOrder()
    pending = begin(order, "p")
    assert order.holds(asked) is is_held
    end(order, pending)
    assert not order.holds(asked)
