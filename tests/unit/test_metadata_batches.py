"""Metadata batches: their bytes, newly assigned partitions, and that nothing grows or slows down without a bound."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import OK, START_MS, TIMED_OUT, acknowledge, ready, record
from example_counts import examples
from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.batches import FAILED_SHARE, MAX_PROBED, MetadataBatches
from flagpost_consumer.core.metadata.retries import Batch, Retries
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.mapping import Metadata, metadata_body
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits, MetadataSettings, Policy
from flagpost_schemas import MetadataValue, VisitorMetadata

Batches = MetadataBatches[None]
MOST_TURNS = 1_000


def batches_of(
    *, batch_size: int = 1000, batch_bytes: int = 4_194_304, linger_seconds: float = 0.0
) -> Batches:
    return MetadataBatches(
        batch_size=batch_size,
        batch_bytes=batch_bytes,
        linger_seconds=linger_seconds,
        ttl_seconds=1800.0,
        max_entries=1000,
    )


def offer(
    batches: Batches,
    offset: int,
    visitor: str,
    values: dict[str, MetadataValue],
    *,
    now: float = 0.0,
    send_from: float = 0.0,
    partition: int = 0,
) -> Item[None]:
    metadata = Metadata("visitor", "custom", visitor, values)
    item: Item[None] = Item(None, metadata, partition, offset, START_MS + offset, missing=False)
    batches.offer(item, now, send_from)
    return item


def send(batches: Batches, now: float = 0.0) -> tuple[Batch, bytes] | None:
    """Start the batch that is due; returns it with the body of its request, or None."""
    for _ in range(MOST_TURNS):
        due = batches.due_at(now)
        if due is None or due > now or (batch := batches.take(now)) is None:
            return None
        if records := batches.gather(batch, now):
            return batch, metadata_body(batch.target, records)
    raise AssertionError("a batch is always due, and none of them has anything to send")


def send_all(batches: Batches, now: float = 0.0) -> list[bytes]:
    """Send everything that is due, and let Pendo accept it; returns the bodies."""
    bodies: list[bytes] = []
    while (sent := send(batches, now)) is not None:
        batches.accepted(sent[0], sent[0].ids, now)
        bodies.append(sent[1])
        assert len(bodies) < MOST_TURNS, "what Pendo took is sent again and again"
    return bodies


def visitors_in(body: bytes) -> list[str]:
    return [entry["visitorId"] for entry in orjson.loads(body)]


def test_the_deliveries_of_a_batch_are_each_named_once() -> None:
    batches = batches_of()
    items = [
        offer(batches, 0, "a", {"f": 1, "g": 1}), offer(batches, 1, "a", {"h": 1}), offer(batches, 2, "b", {"f": 1})
    ]  # fmt: skip
    sent = send(batches)
    assert sent is not None
    assert batches.items(sent[0]) == items
    batches.accepted(sent[0], ["a"], 0.0)
    assert batches.items(sent[0]) == items[2:]


# Which batch is sent first


def ids_of(batch: Batch | None) -> list[str]:
    assert batch is not None
    return list(batch.ids)


def test_the_batch_of_the_id_that_failed_last_is_sent_after_others() -> None:
    batches = batches_of(batch_size=1)
    for offset, visitor in enumerate("ab"):
        offer(batches, offset, visitor, {"f": 1})
    first = batches.take(0.0, avoid="a")
    assert ids_of(first) == ["a"], "there is no batch that failed"
    assert first is not None
    batches.gather(first, 0.0)
    batches.again(first, 0.0)
    assert ids_of(batches.take(0.0, avoid="b")) == ["a"]
    assert ids_of(batches.take(0.0)) == ["b"], "it was put back, to be sent at once"
    assert batches.take(0.0) is None


def failed(batches: Batches, now: float, wait_seconds: float = 0.0) -> None:
    """Send a batch, which fails."""
    batch = batches.take(now)
    assert batch is not None
    batches.gather(batch, now)
    batches.again(batch, now, wait_seconds)


def test_while_ids_wait_a_failed_batch_gets_one_of_eight_requests() -> None:
    """Before the fix, it waited until no id waited, which may never happen if few requests are allowed."""
    batches = batches_of(batch_size=1)
    offer(batches, 0, "a", {"f": 1})
    failed(batches, 0.0, wait_seconds=1.0)
    for number in range(1, 3 * FAILED_SHARE):
        offer(batches, number, f"v{number}", {"f": 1})
    taken = [ids_of(batches.take(1.0)) for _ in range(2 * FAILED_SHARE)]
    assert taken.index(["a"]) == FAILED_SHARE - 2, "its own first request was one of the seven before"
    assert taken.count(["a"]) == 1


def test_after_a_failed_batch_seven_batches_of_waiting_ids_go_before_the_next_one() -> None:
    batches = batches_of(batch_size=1)
    for offset, visitor in enumerate("ab"):
        offer(batches, offset, visitor, {"f": 1})
        failed(batches, 0.0, wait_seconds=1.0)
    for number in range(2, 3 * FAILED_SHARE):
        offer(batches, number, f"v{number}", {"f": 1})
    taken = [ids_of(batches.take(1.0)) for _ in range(2 * FAILED_SHARE)]
    assert taken.index(["b"]) - taken.index(["a"]) == FAILED_SHARE


def test_a_failed_batch_waits_although_it_is_its_turn_if_it_failed_last() -> None:
    batches = batches_of(batch_size=1)
    offer(batches, 0, "a", {"f": 1})
    failed(batches, 0.0)
    for number in range(1, 2 * FAILED_SHARE):
        offer(batches, number, f"v{number}", {"f": 1})
    for _ in range(FAILED_SHARE):
        assert ids_of(batches.take(0.0, avoid="a")) != ["a"], "others show whether Pendo accepts anything"
    assert ids_of(batches.take(0.0)) == ["a"]


def probed(batches: Batches, count: int) -> list[str]:
    """Probe so many times, each time without an answer; returns the ids."""
    names = []
    for _ in range(count):
        probe = batches.take_probe(0.0)
        assert probe is not None
        assert probe.is_probe
        names += ids_of(probe)
        batches.gather(probe, 0.0)
        batches.disband(probe, 0.0)
    return names


def test_every_id_is_a_probe_once_the_newest_first_and_then_all_of_them_in_turn() -> None:
    """An id that always fails has waited for longest."""
    batches = batches_of()
    for offset, visitor in enumerate("abc"):
        offer(batches, offset, visitor, {"f": 1})
    assert "".join(probed(batches, 6)) == "cbacba"
    offer(batches, 3, "d", {"f": 1})
    assert "".join(probed(batches, 6)) == "dcbadc"


def test_probes_alternate_between_ids_that_wait_and_ids_that_failed() -> None:
    batches = batches_of()
    for offset, visitor in enumerate("abc"):
        offer(batches, offset, visitor, {"f": 1})
    failed(batches, 0.0)
    for offset, visitor in enumerate("xyz", 3):
        offer(batches, offset, visitor, {"f": 1})
    assert "".join(probed(batches, 6)) == "zcybxa"


def test_the_newest_id_of_the_failed_batches_that_was_no_probe_is_the_next_one() -> None:
    batches = batches_of(batch_size=2)
    for number, pair in enumerate(["ab", "cd"]):
        for offset, visitor in enumerate(pair, 2 * number):
            offer(batches, offset, visitor, {"f": 1})
        failed(batches, 0.0)
    assert "".join(probed(batches, 4)) == "bdac", "they take turns with those of the other batch"


def test_an_id_that_was_a_probe_and_failed_as_usual_since_is_one_again() -> None:
    batches = batches_of()
    offer(batches, 0, "a", {"f": 1})
    for _ in range(3):
        probe = batches.take_probe(0.0)
        assert ids_of(probe) == ["a"]
        assert probe is not None
        batches.gather(probe, 0.0)
        batches.again(probe, 0.0)


def test_a_probe_of_a_newly_assigned_partition_waits_until_it_may_send() -> None:
    batches = batches_of()
    item = Item(None, Metadata("visitor", "custom", "v", {"f": 1}), 0, 0, START_MS, missing=False)
    batches.offer(item, 0.0, send_from=5.0)
    assert batches.take_probe(4.9) is None
    assert ids_of(batches.take_probe(5.0)) == ["v"]


def test_after_requests_were_sent_as_usual_every_id_may_be_a_probe_again() -> None:
    batches = batches_of()
    for offset, visitor in enumerate("ab"):
        offer(batches, offset, visitor, {"f": 1})
    assert probed(batches, 1) == ["b"]
    failed(batches, 0.0)
    assert probed(batches, 1) == ["b"]


def test_no_more_than_a_thousand_probes_are_remembered() -> None:
    batches = batches_of()
    offer(batches, 0, "old", {"f": 1})
    for number in range(MAX_PROBED):
        offer(batches, number + 1, f"v{number}", {"f": 1})
        assert probed(batches, 1) == [f"v{number}"]
    offer(batches, MAX_PROBED + 1, "next", {"f": 1})
    assert probed(batches, 1) == ["next"]
    assert len(batches._probed) == 1


def test_a_single_id_is_probed_again_and_again() -> None:
    batches = batches_of()
    offer(batches, 0, "a", {"f": 1})
    assert probed(batches, 2) == ["a", "a"]


def test_a_probe_of_waiting_ids_is_one_id_even_when_it_is_the_turn_of_failed_batches() -> None:
    batches = batches_of()
    for offset, visitor in enumerate("abc"):
        offer(batches, offset, visitor, {"f": 1})
    assert [ids_of(batches.take_probe(0.0)) for _ in range(3)] == [["c"], ["b"], ["a"]]


@pytest.mark.parametrize("count", [2, 3])
def test_a_probe_of_a_failed_batch_takes_its_last_id_and_leaves_the_others_together(count: int) -> None:
    batches = batches_of()
    visitors = [f"v{number}" for number in range(count)]
    for offset, visitor in enumerate(visitors):
        offer(batches, offset, visitor, {"f": 1})
    failed(batches, 0.0)
    probe = batches.take_probe(0.0)
    assert probe is not None
    assert batches.gather(probe, 0.0) == [(visitors[-1], {"f": 1})]
    assert [visitors_in(body) for body in send_all(batches)] == [visitors[:-1]]
    batches.accepted(probe, probe.ids, 0.0)
    assert nothing(batches)


def test_dropping_a_batch_that_does_not_wait_changes_nothing() -> None:
    retries, batch = Retries(), Batch("visitor", "custom", ["a"])
    retries.drop(batch)
    retries.push(3.0, batch)
    retries.drop(batch)
    retries.drop(batch)
    assert (len(retries), retries.first_at(), retries.pop(9.0, lambda each: each.who)) == (0, None, None)


# Bytes


def test_a_batch_has_at_most_the_allowed_bytes() -> None:
    """Before the fix, a thousand records of 196 KB became one request of 196 MB."""
    batches = batches_of(batch_bytes=1_000_000)
    for offset in range(100):
        offer(batches, offset, f"v{offset}", {f"f{number}": "x" * 5_000 for number in range(10)})
    bodies = send_all(batches)
    assert max(map(len, bodies)) <= 1_000_000
    assert len(bodies) == 6
    assert sum(len(visitors_in(body)) for body in bodies) == 100
    assert [ending for _, ending in batches.take_ended()] == [DELIVERED] * 100


def test_the_values_of_one_visitor_go_in_several_requests_when_they_are_too_many() -> None:
    """Each event may be small. Before the fix, together they became one record of any size."""
    batches = batches_of(batch_bytes=100_000)
    for offset in range(100):
        offer(batches, offset, "v", {f"f{offset}": "x" * 9_000})
    offer(batches, 100, "w", {"f": 1})
    bodies = send_all(batches)
    assert max(map(len, bodies)) <= 100_000
    assert len(bodies) <= 12
    sent = [name for body in bodies for entry in orjson.loads(body) for name in entry["values"]]
    assert sorted(sent) == sorted(["f", *(f"f{offset}" for offset in range(100))])
    ended = batches.take_ended()
    assert [item.offset for item, _ in ended if item.metadata.target_id == "v"] == list(range(100))


def test_a_delivery_of_several_fields_is_never_in_two_requests() -> None:
    """Otherwise its offset would be settled late: one of its fields would wait for another request."""
    batches = batches_of(batch_bytes=1_000)
    for offset in range(6):
        offer(batches, offset, "v", {f"f{offset}": "x" * 200, f"g{offset}": "x" * 200})
    names = [set(orjson.loads(body)[0]["values"]) for body in send_all(batches)]
    assert all(f"f{offset}" in sent for offset in range(6) for sent in names if f"g{offset}" in sent)
    assert [min(sent) for sent in names] == ["f0", "f2", "f4"]


def test_a_batch_that_is_sent_again_keeps_the_bound_with_the_newer_values() -> None:
    batches = batches_of(batch_bytes=10_000)
    for offset in range(10):
        offer(batches, offset, f"v{offset}", {"f": "x" * 100})
    first = send(batches)
    assert first is not None
    batches.again(first[0], 0.0, 5.0)
    for offset in range(10):
        offer(batches, 10 + offset, f"v{offset}", {"f": "x" * 4_000})
    bodies = send_all(batches, 5.0)
    assert max(map(len, bodies)) <= 10_000
    assert sum(len(visitors_in(body)) for body in bodies) == 10


def test_ids_that_do_not_fit_in_a_batch_do_not_linger_again() -> None:
    batches = batches_of(batch_bytes=10_000, linger_seconds=60.0)
    for offset in range(10):
        offer(batches, offset, f"v{offset}", {"f": "x" * 100})
    first = send(batches, 60.0)
    assert first is not None
    batches.again(first[0], 60.0)
    for offset in range(10):
        offer(batches, 10 + offset, f"v{offset}", {"f": "x" * 4_000}, now=60.0)
    assert sum(len(visitors_in(body)) for body in send_all(batches, 60.0)) == 10


def test_a_record_larger_than_a_request_is_invalid_and_supersedes_nothing() -> None:
    batches = batches_of(batch_bytes=1_000)
    offer(batches, 0, "v", {"f": "small"})
    offer(batches, 1, "v", {"f": "x" * 1_000})
    ((item, ending),) = batches.take_ended()
    assert (item.offset, ending.reason) == (1, Reason.INVALID)
    assert "metadata.batch_bytes" in ending.detail
    assert [orjson.loads(body)[0]["values"] for body in send_all(batches)] == [{"f": "small"}]


def test_a_record_may_fill_a_request_to_the_last_byte() -> None:
    values: dict[str, MetadataValue] = {"f": "x" * 100, "g": 1}
    roomy = batches_of()
    offer(roomy, 0, "v", values)
    (body,) = send_all(roomy)
    holds, too_small = batches_of(batch_bytes=len(body) + 2), batches_of(batch_bytes=len(body) + 1)
    offer(holds, 0, "v", values)
    assert send_all(holds) == [body]
    offer(too_small, 0, "v", values)
    ((_, ending),) = too_small.take_ended()
    assert ending.reason is Reason.INVALID
    assert f"take {len(body)} bytes" in ending.detail
    assert f"allows {len(body) + 1} " in ending.detail


@pytest.mark.parametrize(("bytes_more", "sent"), [(2, [["f", "g"], ["h"]]), (1, [["f"], ["g"], ["h"]])])
def test_deliveries_of_one_id_fill_a_request_to_the_last_byte(bytes_more: int, sent: list[list[str]]) -> None:
    roomy = batches_of()
    offer(roomy, 0, "v", {"f": "x" * 100})
    offer(roomy, 1, "v", {"g": "x" * 100})
    (body,) = send_all(roomy)
    batches = batches_of(batch_bytes=len(body) + bytes_more)
    for offset, name in enumerate("fg"):
        offer(batches, offset, "v", {name: "x" * 100})
    offer(batches, 2, "v", {"h": "x" * 101})
    assert [list(orjson.loads(each)[0]["values"]) for each in send_all(batches)] == sent


@pytest.mark.parametrize("is_enough", [True, False])
def test_ids_that_fill_a_request_to_the_last_byte_go_together(is_enough: bool) -> None:
    """Each record is counted with a comma after its last field and one after itself, and the body with brackets."""
    roomy = batches_of()
    for offset, visitor in enumerate("ab"):
        offer(roomy, offset, visitor, {"f": "x" * 100})
    (body,) = send_all(roomy)
    batches = batches_of(batch_bytes=len(body) + (3 if is_enough else 2))
    for offset, visitor in enumerate("ab"):
        offer(batches, offset, visitor, {"f": "x" * 100})
    together = [["a", "b"]] if is_enough else [["a"], ["b"]]
    assert [visitors_in(each) for each in send_all(batches)] == together


@given(
    ids=st.lists(st.text(max_size=8), min_size=1, max_size=6, unique=True),
    names=st.lists(st.text(max_size=6), min_size=1, max_size=4, unique=True),
    values=st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()
        ),
        min_size=4,
        max_size=4,
    ),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=examples(100))
def test_the_counted_bytes_are_those_that_are_sent(
    ids: list[str], names: list[str], values: list[MetadataValue], seed: int
) -> None:
    """The counted bytes are those of the body, and a comma after each record's last field and the last record."""
    draw = Random(seed)
    batches = batches_of()
    for offset in range(20):
        chosen = draw.sample(names, draw.randint(1, len(names)))
        offer(batches, offset, draw.choice(ids), {name: draw.choice(values) for name in chosen})
    waiting = [target.waiting["custom"] for target in batches._targets.values()]
    counted = 2 + sum(each.size for each in waiting)
    assert batches._queues["visitor", "custom"]._bytes == counted - 2
    (body,) = send_all(batches)
    assert len(body) == counted - len(waiting) - 1
    assert batches._queues["visitor", "custom"]._bytes == 0
    assert batches._targets == {}


def test_a_batch_that_is_full_by_its_bytes_does_not_linger() -> None:
    batches = batches_of(batch_bytes=10_000, linger_seconds=60.0)
    for offset in range(4):
        offer(batches, offset, f"v{offset}", {"f": "x" * 2_400})
        assert batches.due_at(0.0) == 60.0
    offer(batches, 4, "v4", {"f": "x" * 2_400})
    assert batches.due_at(0.0) == 0.0
    assert [len(visitors_in(body)) for body in send_all(batches)] == [4]
    assert batches.due_at(0.0) == 60.0


def test_bytes_that_were_handed_back_do_not_fill_a_batch() -> None:
    batches = batches_of(batch_bytes=10_000, linger_seconds=60.0)
    gone = offer(batches, 0, "v", {"f": "x" * 6_000})
    offer(batches, 1, "v", {"g": 1})
    batches.remove([gone])
    offer(batches, 2, "w", {"f": "x" * 6_000})
    assert batches.due_at(0.0) == 60.0
    assert [visitors_in(body) for body in send_all(batches, 60.0)] == [["v", "w"]]
    assert batches._queues["visitor", "custom"]._bytes == 0


# Lingering


def test_an_id_waits_in_the_batch_of_each_of_its_groups() -> None:
    batches = batches_of(batch_size=2, linger_seconds=60.0)
    offer(batches, 0, "v", {"f": 1})
    for offset, visitor in ((1, "v"), (2, "w")):
        metadata = Metadata("visitor", "agent", visitor, {"f": 1})
        batches.offer(Item(None, metadata, 0, offset, START_MS, missing=False), 0.0)
    assert batches.due_at(0.0) == 0.0, "the batch of the second group is full"
    assert [visitors_in(body) for body in send_all(batches, 0.0)] == [["v", "w"]]
    assert [visitors_in(body) for body in send_all(batches, 60.0)] == [["v"]]


def test_newer_values_do_not_make_an_id_linger_longer() -> None:
    batches = batches_of(linger_seconds=2.0)
    for offset in range(10):
        offer(batches, offset, "v", {"f": offset}, now=float(offset) / 10)
    assert batches.due_at(1.0) == 2.0


def test_an_id_whose_partition_may_send_from_now_on_does_not_linger_anew() -> None:
    batches = batches_of(linger_seconds=2.0)
    offer(batches, 0, "v", {"f": 0}, now=0.0)
    offer(batches, 1, "v", {"f": 1}, now=1.0, send_from=1.0)
    assert batches.due_at(1.0) == 2.0


def test_a_busy_kind_of_metadata_does_not_starve_another() -> None:
    """Before the fix, visitors' batches went first for as long as one of them was full."""
    batches = batches_of(batch_size=10, linger_seconds=1.0)
    for offset in range(30):
        offer(batches, offset, f"v{offset}", {"f": 1}, now=offset / 10)
    account = Item(None, Metadata("account", "custom", "a", {"f": 1}), 0, 99, START_MS, missing=False)
    batches.offer(account, 0.3)
    kinds = []
    for _ in range(4):
        sent = send(batches, 3.0)
        assert sent is not None
        kinds.append(sent[0].target)
    assert kinds == ["visitor", "visitor", "account", "visitor"]


# Pendo's values


def ended(batches: Batches) -> dict[int, Reason]:
    """How deliveries have ended since the last call, by offset."""
    return {item.offset: ending.reason for item, ending in batches.take_ended()}


def values_in(body: bytes) -> dict[str, MetadataValue]:
    """The values of the only record in a request."""
    (entry,) = orjson.loads(body)
    found: dict[str, MetadataValue] = entry["values"]
    return found


def test_a_delivery_that_comes_again_is_unchanged() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    send_all(batches)
    assert ended(batches) == {0: Reason.OK}
    offer(batches, 0, "v", {"f": 1})
    assert ended(batches) == {0: Reason.UNCHANGED}


def test_a_value_older_than_one_that_was_found_unchanged_is_superseded() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    send_all(batches)
    offer(batches, 5, "v", {"f": 1})
    offer(batches, 3, "v", {"f": 2})
    assert send_all(batches) == []
    assert ended(batches) == {0: Reason.OK, 5: Reason.UNCHANGED, 3: Reason.SUPERSEDED}


def test_a_value_is_sent_again_after_a_request_with_another_one_failed() -> None:
    """Pendo may have accepted the other value although the request failed."""
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    send_all(batches)
    offer(batches, 1, "v", {"f": 2})
    failed(batches, 0.0)
    offer(batches, 2, "v", {"f": 1})
    assert [values_in(body) for body in send_all(batches)] == [{"f": 1}]


def test_a_value_is_sent_again_after_pendo_refused_another_one() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    send_all(batches)
    offer(batches, 1, "v", {"f": 2})
    sent = send(batches)
    assert sent is not None
    batches.refused(sent[0], "v", Ending(Reason.REJECTED), 0.0)
    offer(batches, 2, "v", {"f": 1})
    assert [values_in(body) for body in send_all(batches)] == [{"f": 1}]


def test_of_equally_old_values_of_two_partitions_the_last_one_offered_is_sent() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1}, partition=0)
    offer(batches, 0, "v", {"f": 2}, partition=1)
    assert [values_in(body) for body in send_all(batches)] == [{"f": 2}]


# Deliveries that are given up


def exhausted(_: Item[None]) -> Ending:
    return Ending(Reason.ATTEMPTS_EXHAUSTED)


def test_other_values_of_an_id_are_sent_once_its_batch_is_given_up() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    sent = send(batches)
    assert sent is not None
    other = Item(None, Metadata("visitor", "agent", "v", {"g": 1}), 0, 1, START_MS, missing=False)
    batches.offer(other, 0.0)
    assert batches.due_at(0.0) is None, "one request an id at a time"
    batches.again(sent[0], 0.0, 60.0, exhausted)
    assert ended(batches) == {0: Reason.ATTEMPTS_EXHAUSTED}
    assert [values_in(body) for body in send_all(batches)] == [{"g": 1}]
    assert ended(batches) == {1: Reason.OK}


def test_a_probe_that_is_given_up_is_not_sent_again() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1})
    probe = batches.take_probe(0.0)
    assert probe is not None
    batches.gather(probe, 0.0)
    batches.disband(probe, 0.0, exhausted)
    assert ended(batches) == {0: Reason.ATTEMPTS_EXHAUSTED}
    assert send_all(batches) == []


def test_a_scout_is_one_id_and_the_others_go_without_it() -> None:
    batches = batches_of()
    for offset, visitor in enumerate("abcd"):
        offer(batches, offset, visitor, {"f": 1})
    sent = send(batches)
    assert sent is not None
    batches.again(sent[0], 0.0)
    again = batches.take(0.0)
    assert again is sent[0]
    batches.send_scout(again, 0.0)
    assert [visitors_in(body) for body in send_all(batches)] == [["a"], ["b", "c", "d"]]
    assert nothing(batches)


# Newly assigned partitions


def test_an_id_of_a_newly_assigned_partition_holds_back_no_other() -> None:
    """Before the fix, the first id decided when the queue is due, although it could not be sent yet."""
    batches = batches_of(linger_seconds=0.5)
    offer(batches, 0, "new", {"f": 1}, now=0.0, send_from=100.0, partition=1)
    offer(batches, 0, "old", {"f": 1}, now=0.0)
    assert batches.due_at(0.0) == 0.5
    assert [visitors_in(body) for body in send_all(batches, 0.5)] == [["old"]]
    assert batches.due_at(1.0) == 100.0
    assert send_all(batches, 100.0) == []
    assert [visitors_in(body) for body in send_all(batches, 100.5)] == [["new"]]


def test_an_id_of_two_partitions_waits_for_the_later_one() -> None:
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1}, send_from=100.0, partition=1)
    offer(batches, 0, "v", {"g": 1}, send_from=50.0, partition=2)
    assert send_all(batches, 50.0) == []
    assert [orjson.loads(body)[0]["values"] for body in send_all(batches, 100.0)] == [{"f": 1, "g": 1}]


def test_a_delivery_that_comes_back_does_not_follow_the_one_handed_back_before() -> None:
    """The old delivery, handed back, still waits for one of another partition; the new one is settled."""
    batches = batches_of()
    offer(batches, 0, "v", {"f": 1, "g": 1}, partition=1)
    gone = offer(batches, 1, "v", {"f": 2}, partition=0)
    batches.remove([gone])
    offer(batches, 1, "v", {"f": 2}, partition=0)
    send_all(batches)
    assert sorted(item.partition for item, _ in batches.take_ended()) == [0, 1]
    assert batches.take_returned() == []


def test_a_busy_id_of_a_newly_assigned_partition_waits_for_its_interval_too() -> None:
    """Before the fix, once its request was answered, it was sent with the next batch, whatever the interval."""
    batches = batches_of()
    abandoned = offer(batches, 0, "v", {"f": 1})
    sent = send(batches)
    assert sent is not None
    batches.remove([abandoned])
    offer(batches, 0, "v", {"f": 1}, now=1.0, send_from=100.0)
    batches.accepted(sent[0], sent[0].ids, 2.0)
    assert send_all(batches, 2.0) == []
    assert [visitors_in(body) for body in send_all(batches, 100.0)] == [["v"]]


@pytest.mark.parametrize("drains", [False, True])
def test_a_batch_that_is_sent_again_leaves_out_ids_that_may_not_be_sent_yet(drains: bool) -> None:
    """Before the fix, it took the newest values of its ids, even of a partition that had just come back."""
    batches = batches_of()
    gone = offer(batches, 0, "moved", {"f": 1}, partition=1)
    offer(batches, 0, "stays", {"f": 1})
    sent = send(batches)
    assert sent is not None
    batches.remove([gone])
    offer(batches, 0, "moved", {"f": 1}, now=1.0, send_from=100.0, partition=1)
    batches.again(sent[0], 2.0, 3.0)
    if drains:
        batches.flush(5.0)
    assert [visitors_in(body) for body in send_all(batches, 5.0)] == [["stays"]]
    assert [visitors_in(body) for body in send_all(batches, 100.0)] == [["moved"]]


def test_metadata_keeps_a_new_partitions_interval_while_its_old_request_is_answered() -> None:
    policy = Policy(
        delivery=DeliverySettings(visitor_interval_seconds=5.0),
        metadata=MetadataSettings(linger_seconds=0.0),
        limits=EndpointLimits(metadata_requests_per_minute=None),
    )
    engine = Engine(policy, Random(1).random)
    made = record(VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values={"plan": "pro"}))
    ready(engine, [0], 1, at(0.0), policy)
    engine.receive([made], at(0.0))
    (abandoned,) = attempts_at(engine, 5.0)
    engine.forget([0], at(6.0))
    ready(engine, [0], 1, at(6.0), policy)
    engine.receive([made], at(6.0))
    engine.answered(abandoned, OK, at(7.0))
    assert attempts_at(engine, 7.0) == attempts_at(engine, 10.9) == []
    assert len(attempts_at(engine, 11.0)) == 1


def at(seconds: float) -> Instant:
    return Instant(seconds, START_MS + int(seconds * 1000))


def attempts_at(engine: Engine, seconds: float) -> list[Attempt]:
    actions = engine.poll(at(seconds))
    acknowledge(engine, actions.settlements)
    return actions.attempts


# Bounds


def sizes(batches: Batches) -> dict[str, int]:
    """The number of entries in each collection."""
    return {
        "targets": len(batches._targets),
        "queued": sum(map(len, batches._queues.values())),
        "not yet": sum(map(len, batches._not_yet.values())),
        "retries": len(batches._retries),
        "retry moments": len(batches._retries._heap),
        "order": len(batches._order),
    }


def nothing(batches: Batches) -> bool:
    return set(sizes(batches).values()) <= {0}


def test_deliveries_handed_back_while_pendo_is_down_leave_nothing_behind() -> None:
    """Before the fix, the ids of batches that waited for a retry stayed, more with each hand-over in an outage."""
    batches = batches_of(batch_size=10)
    offer(batches, 0, "stays", {"f": 1}, partition=1)
    first = send(batches)
    assert first is not None
    batches.again(first[0], 0.0, 1000.0)
    for hand_over in range(10):
        items = [
            offer(batches, offset, f"v{hand_over}-{offset}", {"f": 1}, now=float(hand_over))
            for offset in range(100)
        ]
        while (sent := send(batches, float(hand_over))) is not None:
            batches.again(sent[0], float(hand_over), 3600.0)
        assert sizes(batches)["retries"] == 1 + 10
        batches.remove(items)
        left = sizes(batches)
        assert left.pop("retry moments") <= 18
        assert left == {"targets": 1, "queued": 0, "not yet": 0, "retries": 1, "order": 1}
    assert len(batches.take_ended()) == len(batches.take_returned()) == 0


def test_the_rest_of_a_batch_is_sent_after_most_of_it_was_handed_back() -> None:
    batches = batches_of()
    items = [offer(batches, offset, f"v{offset}", {"f": 1}) for offset in range(10)]
    sent = send(batches)
    assert sent is not None
    batches.again(sent[0], 0.0, 5.0)
    batches.remove(items[:9])
    offer(batches, 10, "v0", {"f": 2})
    assert sizes(batches)["targets"] == 2
    assert [visitors_in(body) for body in send_all(batches, 5.0)] == [["v0"], ["v9"]]
    assert nothing(batches)


def test_ids_that_wait_for_their_partition_are_dropped_with_it() -> None:
    batches = batches_of()
    for number in range(20):
        items = [
            offer(batches, offset, f"v{offset}", {"f": 1}, send_from=1000.0 + number) for offset in range(10)
        ]
        assert sizes(batches)["not yet"] == 10
        batches.remove(items)
        assert nothing(batches)
    assert batches.due_at(0.0) is None


class Life:
    """Values of a few visitors that are offered, sent, answered and handed back at random."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.batches = batches_of(
            batch_size=self.draw.choice((1, 3, 100)), batch_bytes=self.draw.choice((300, 10_000))
        )
        self.under_way: list[Batch] = []
        self.living: dict[int, Item[None]] = {}
        self.now = 0.0

    def offer(self, offset: int) -> None:
        names = self.draw.sample("pqr", self.draw.randint(1, 3))
        values: dict[str, MetadataValue] = {name: self.draw.choice((1, "x" * 40)) for name in names}
        send_from = self.now + self.draw.choice((-1.0, 1.0))
        visitor = f"v{self.draw.randrange(5)}"
        self.living[offset] = offer(self.batches, offset, visitor, values, now=self.now, send_from=send_from)

    def send(self) -> None:
        sent = send(self.batches, self.now)
        if sent is not None:
            assert len(sent[1]) <= self.batches._batch_bytes
            self.under_way.append(sent[0])

    def answer(self) -> None:
        if not self.under_way:
            return
        batch = self.under_way.pop(self.draw.randrange(len(self.under_way)))
        how = self.draw.randrange(5)
        if how == 0:
            self.batches.again(batch, self.now, self.draw.choice((0.0, 2.0)))
        elif how == 1:
            self.batches.halve(batch, batch.ids, self.now)
        elif how == 2:
            for target_id in list(batch.ids):
                self.batches.refused(batch, target_id, Ending(Reason.REJECTED), self.now)
        else:
            self.batches.accepted(batch, list(batch.ids), self.now)

    def hand_back(self) -> None:
        self.batches.remove(list(self.living.values()))
        self.living.clear()

    def settle(self) -> None:
        while ended := self.batches.take_ended():
            for item, ending in ended:
                del self.living[item.offset]
                if ending.reason is Reason.REJECTED:
                    self.batches.acknowledge(item)
        for item in self.batches.take_returned():
            del self.living[item.offset]

    def step(self, number: int) -> None:
        self.now += self.draw.choice((0.0, 0.5))
        happenings: list[Callable[[], None]] = [
            lambda: self.offer(number),
            self.send,
            self.answer,
            self.hand_back,
        ]
        self.draw.choices(happenings, (20, 10, 10, 1))[0]()
        self.settle()

    def finish(self) -> None:
        for _ in range(200):
            self.now += 1.0
            for batch in self.under_way:
                self.batches.accepted(batch, list(batch.ids), self.now)
            self.under_way.clear()
            send_all(self.batches, self.now)
            self.settle()


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=examples(100))
def test_nothing_is_left_once_all_has_ended(seed: int) -> None:
    life = Life(seed)
    for number in range(200):
        life.step(number)
    life.finish()
    assert life.living == {}
    left = sizes(life.batches)
    assert left.pop("retry moments") <= 16
    assert set(left.values()) == {0}


# Costs


def steps_of(work: Callable[[], object]) -> int:
    """The number of lines of our code that a piece of work runs: the same on every machine."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if "flagpost_consumer" not in frame.f_code.co_filename:
            return None  # The garbage collector may call something just now.
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def waiting_batches(ids: int, *, send_from: float = 0.0) -> Batches:
    batches = batches_of(batch_size=10, linger_seconds=1.0)
    for offset in range(ids):
        offer(batches, offset, f"v{offset}", {"f": 1}, send_from=send_from)
    return batches


@pytest.mark.parametrize("send_from", [0.0, 50.0], ids=["sendable", "not yet"])
def test_the_cost_of_a_poll_does_not_grow_with_the_ids_that_wait(send_from: float) -> None:
    def work(ids: int) -> list[int]:
        batches = waiting_batches(ids, send_from=send_from)
        moments = (0.0, 0.0, 10.0)
        looks = [steps_of(lambda now=now: batches.due_at(now)) for now in moments]  # type: ignore[misc]
        takes = [steps_of(lambda now=now: batches.take(now)) for now in moments]  # type: ignore[misc]
        return [*looks, *takes]

    assert work(50) == work(1_000)


def test_the_cost_of_a_batch_does_not_grow_with_the_other_ids_that_wait() -> None:
    def work(batches: Batches) -> int:
        sent = send(batches, 2.0)
        assert sent is not None
        batch = sent[0]

        def answer_twice() -> None:
            batches.items(batch)
            batches.again(batch, 2.0)
            again = send(batches, 2.0)
            assert again is not None
            batches.accepted(again[0], again[0].ids, 2.0)

        return steps_of(answer_twice)

    assert work(waiting_batches(50)) == work(waiting_batches(1_000))


def test_the_cost_of_a_value_does_not_grow_with_the_visitors_other_values() -> None:
    """Before the fix, an id with ten thousand fields took a hundred million steps."""

    def work(fields: int) -> int:
        batches = batches_of(linger_seconds=60.0)
        for offset in range(fields):
            offer(batches, offset, "v", {f"f{offset}": 1})
        return steps_of(lambda: offer(batches, fields, "v", {"one more": 1}))

    work(1)  # This fills the cache of names.
    assert work(10) == work(1_000)


# In the engine


def test_a_record_larger_than_a_request_is_dead_lettered_as_invalid() -> None:
    policy = Policy(
        metadata=MetadataSettings(batch_bytes=65_536, linger_seconds=0.0),
        limits=EndpointLimits(metadata_requests_per_minute=None),
    )
    engine = Engine(policy, Random(1).random)
    (partition,) = engine.assign([0], 1, at(0.0))
    engine.restore(partition, Restoration(0, policy.dedupe))
    event = VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values={"f": "\x01" * 11_000})
    engine.receive([record(event)], at(0.0))
    (settlement,) = engine.poll(at(0.0)).settlements
    assert settlement.ending.reason is Reason.INVALID
    acknowledge(engine, [settlement])
    assert engine.accounts.difference(Kind.VISITOR_METADATA) == 0
    assert engine.pending_records == 0


@pytest.mark.parametrize("answer", [Answer(500), TIMED_OUT])
def test_large_records_that_fail_are_sent_again_within_the_bound(answer: Answer) -> None:
    policy = Policy(
        metadata=MetadataSettings(batch_bytes=65_536, linger_seconds=0.0),
        delivery=DeliverySettings(visitor_interval_seconds=0.0),
        limits=EndpointLimits(metadata_requests_per_minute=None),
    )
    engine = Engine(policy, Random(1).random)
    ready(engine, [0], 1, at(0.0), policy)
    for offset in range(20):
        event = VisitorMetadata(
            event_id=f"e{offset}", occurred_at=START_MS, visitor_id=f"v{offset}", values={"f": "x" * 20_000}
        )
        engine.receive([record(event, offset)], at(0.0))
    seconds, answers = 1.0, [answer] * 3
    while engine.pending_records:
        for attempt in attempts_at(engine, seconds):
            assert len(attempt.body) <= 65_536
            engine.answered(attempt, answers.pop() if answers else OK, at(seconds))
        seconds += 10.0
    assert not answers
