"""The memory of the programs at the edge has a bound: a number of entries, and a number of bytes for each."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from flagpost_consumer.commands.imports.roles import KEPT_SHAPES, MAX_KEPT_CHARACTERS, RoleFinder
from flagpost_publisher.complaints import Complaints
from flagpost_publisher.duplicates import Duplicates, claim_of
from flagpost_publisher.errors import EventRefused
from flagpost_publisher.gateway import routes
from flagpost_publisher.gateway.metrics import STATUSES, GatewayMetrics
from flagpost_publisher.gateway.webhooks_route import Once
from flagpost_schemas import DecisionEvent, Decoder, Source, encode_body, encode_single_object
from flagpost_schemas.body import KEPT

LONG = 50_000
A = DecisionEvent(
    event_id="1",
    occurred_at=0,
    visitor_id="v",
    flag_key="f",
    enabled=True,
    variation_key="a",
    decision_event_dispatched=True,
)


@contextmanager
def grows_by_at_most(most_bytes: int) -> Iterator[None]:
    """Fail if the objects that were made in the block, and still exist at its end, take more bytes."""
    tracemalloc.start()
    try:
        yield
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < most_bytes


def long_text(number: int) -> str:
    return f"{number:0>{LONG}}"


LONG_TEXTS: list[Callable[[int], DecisionEvent]] = [
    lambda number: replace(A, visitor_id=long_text(number)),
    lambda number: replace(A, flag_key=long_text(number)),
    lambda number: replace(A, visitor_id=f"v{number}", variation_key=long_text(number)),
]


@pytest.mark.parametrize("event_of", LONG_TEXTS)
def test_a_publishers_memory_of_duplicates_is_bounded_in_bytes(
    event_of: Callable[[int], DecisionEvent],
) -> None:
    """Before the fix, only the entries were limited: a hundred thousand ids of 50 KB took 5 GB."""
    duplicates = Duplicates(60, 1_000)
    with grows_by_at_most(1_500_000):
        assert all(duplicates.is_news(claim_of(event_of(number))) for number in range(1_500))

        assert not duplicates.is_news(claim_of(event_of(1_499)))
        assert duplicates.is_news(claim_of(event_of(0)))  # the oldest was forgotten
    duplicates.forget(claim_of(event_of(1_499)))
    assert duplicates.is_news(claim_of(event_of(1_499)))


def test_the_memory_of_duplicates_lets_an_id_that_is_not_text_through() -> None:
    """The memory of duplicates is asked first, and must not raise."""
    for wrong in (5, b"x" * 300):
        claim = claim_of(replace(A, visitor_id=wrong))  # type: ignore[arg-type]
        assert Duplicates(60, 10).is_news(claim)


def test_long_claims_are_distinguished() -> None:
    duplicates = Duplicates(60, 10)
    events = [replace(A, visitor_id="x" * LONG + tail) for tail in "ab"]

    assert [duplicates.is_news(claim_of(each)) for each in (*events, *events)] == [True, True, False, False]
    assert duplicates.is_news(claim_of(replace(events[0], variation_key="b")))


@pytest.mark.parametrize(
    "event_of",
    [
        lambda number: replace(A, flag_key=long_text(number)),
        lambda number: replace(A, source=Source(service=long_text(number))),
    ],
)
def test_the_bytes_of_recurring_fields_are_kept_while_they_are_short(
    event_of: Callable[[int], DecisionEvent],
) -> None:
    """Before the fix, 1,024 flag keys of 50 KB, each with its bytes, took 100 MB of the gateway's 256 MB."""
    with grows_by_at_most(1_000_000):
        for number in range(KEPT + 200):
            encode_body(event_of(number))

    event = event_of(7)
    assert Decoder().decode(encode_single_object(event)) == event


def test_the_import_keeps_few_shapes_of_rows_and_no_long_ones() -> None:
    """JSON lines may have other member names in each line, up to a megabyte of names."""
    roles = RoleFinder("visitor", None)
    with grows_by_at_most(1_000_000):
        for number in range(2 * KEPT_SHAPES):
            names = ("visitor_id", f"{number:0>{MAX_KEPT_CHARACTERS}}")
            assert roles.find(names).column_of == {"visitor_id": "visitor_id"}
    with grows_by_at_most(1_000_000):
        for number in range(10 * KEPT_SHAPES):
            roles.find(("visitor_id", f"plan {number}"))


async def test_webhooks_that_were_seen_are_forgotten_beyond_a_number() -> None:
    published: list[str] = []
    once = Once(60, max_entries=100, timer=lambda: 0.0)

    async def send(digest: str) -> bool:
        async def publish() -> None:
            published.append(digest)

        return await once.publish(digest, publish)

    for number in range(150):
        assert await send(str(number))

    assert not await send("149")
    assert await send("0")  # forgotten: it is published again, and readers of the topic compare the digest
    assert len(once._seen) == 100
    assert len(once._under_way) == 0


def test_the_gateways_series_do_not_grow() -> None:
    metrics = GatewayMetrics(routes.SET_ASIDE_REASONS, routes.NOT_BELIEVED_REASONS)
    metrics.expect(["/v1/events"])

    def series() -> int:
        return sum(len(family.samples) for family in metrics.registry.collect())

    before = series()
    for status in STATUSES:
        metrics.answered("/v1/events", status, 0.1)
        metrics.answered("other", status, 0.1)
    assert series() == before


def test_complaints_keep_one_of_each_kind() -> None:
    complaints = Complaints(None)
    with grows_by_at_most(100_000):
        for number in range(10_000):
            complaints.note(EventRefused("invalid", json.dumps(number)))

    assert len(complaints._untold) == 1
