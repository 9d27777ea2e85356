"""How many requests changes of visitors take, by the order and the pace in which they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import pytest

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.batches import MetadataBatches
from flagpost_consumer.core.outcomes import DELIVERED
from flagpost_consumer.core.planning.mapping import Metadata

VISITORS, FLAGS, MOST_REQUESTS = 10_000, 5, 60
Change = tuple[int, int]
"""The numbers of a visitor and of a flag."""


def visitor_after_visitor() -> list[Change]:
    return [(visitor, flag) for visitor in range(VISITORS) for flag in range(FLAGS)]


def flag_after_flag(visitors: int = VISITORS, flags: int = FLAGS) -> list[Change]:
    return [(visitor, flag) for flag in range(flags) for visitor in range(visitors)]


def shuffled() -> list[Change]:
    changes = visitor_after_visitor()
    Random(5).shuffle(changes)
    return changes


def requests_for(changes: Iterable[Change], per_second: float, linger_seconds: float = 2.0) -> int:
    """Let changes arrive at an even pace, and Pendo answer at once; returns the number of requests."""
    batches: MetadataBatches[None] = MetadataBatches(
        batch_size=1_000,
        batch_bytes=4_194_304,
        linger_seconds=linger_seconds,
        ttl_seconds=1_800.0,
        max_entries=2_000_000,
    )
    requests, offered = 0, 0
    for offered, (visitor, flag) in enumerate(changes):
        now = offered / per_second
        requests += send_due(batches, now)
        metadata = Metadata("visitor", "custom", f"v{visitor}", {f"flag{flag}": "a"})
        batches.offer(Item(None, metadata, 0, offered, 1_000, missing=False), now)
    while (due := batches.due_at(offered / per_second)) is not None:
        requests += send_due(batches, due)
    assert [ending for _, ending in batches.take_ended()] == [DELIVERED] * (offered + 1)
    return requests


def send_due(batches: MetadataBatches[None], now: float) -> int:
    """Send the batches that are due; returns the number of requests."""
    sent = 0
    while (batches.due_at(now) or now + 1) <= now and (batch := batches.take(now)) is not None:
        batches.gather(batch, now)
        batches.accepted(batch, list(batch.ids), now)
        sent += 1
    return sent


@pytest.mark.simulated_hours
@pytest.mark.parametrize("order", [visitor_after_visitor, flag_after_flag, shuffled])
def test_at_500_changes_a_second_there_are_at_most_sixty_requests(order: Callable[[], list[Change]]) -> None:
    assert requests_for(order(), per_second=500) <= MOST_REQUESTS


@pytest.mark.thorough
def test_at_a_lower_rate_there_is_one_request_for_each_linger_time() -> None:
    changes = flag_after_flag(visitors=5_000, flags=2)
    per_second, linger_seconds = 100, 2.0
    arriving_seconds = len(changes) / per_second
    assert requests_for(changes, per_second, linger_seconds) == arriving_seconds / linger_seconds
    most_requests = MOST_REQUESTS * len(changes) / (VISITORS * FLAGS)
    assert requests_for(changes, per_second, 10 * linger_seconds) <= most_requests
