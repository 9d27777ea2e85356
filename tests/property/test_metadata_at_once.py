"""A metadata delivery that `is_unchanged` ends at once would end the same way if it were offered.

Two coordinators get the same deliveries and the same answers; one of them asks `is_unchanged` first.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.batches import MetadataBatches
from flagpost_consumer.core.outcomes import Ending, Outcome, Reason
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_schemas import MetadataValue

TTL_SECONDS = 10.0
STEPS = 60
CONTENTS: tuple[MetadataValue, ...] = ("a", "b", "1", 1, 1.0, True, ["a"], "long" * 50)
Told = dict[int, Reason]
"""How each delivery ended, by offset."""


class Side:
    """One coordinator, and how its deliveries have ended."""

    def __init__(self, *, asks_first: bool) -> None:
        self.asks_first = asks_first
        self.at_once = 0
        self.told: Told = {}
        self.batches: MetadataBatches[int] = MetadataBatches(
            batch_size=2, batch_bytes=300, linger_seconds=0.0, ttl_seconds=TTL_SECONDS, max_entries=1_000
        )

    def take_in(self, metadata: Metadata, offset: int, occurred_at: int) -> None:
        if self.asks_first and self.batches.is_unchanged(metadata, 0, (occurred_at, offset)):
            self.told[offset] = Reason.UNCHANGED
            self.at_once += 1
            return
        self.batches.offer(Item(offset, metadata, 0, offset, occurred_at, missing=False), 0.0)
        self.note()

    def send(self, answer: Callable[[MetadataBatches[int]], None]) -> None:
        answer(self.batches)
        self.note()

    def note(self) -> None:
        while ended := self.batches.take_ended():
            for item, ending in ended:
                self.told[item.owner] = ending.reason
                if ending.outcome is Outcome.DEAD_LETTERED:
                    self.batches.acknowledge(item)


def answers(draw: Random) -> Callable[[MetadataBatches[int]], None]:
    """A function that takes a side's next batch and answers it, in the same way for both sides."""
    kind = draw.choice(("accepted", "accepted", "refused", "again"))

    def give(batches: MetadataBatches[int]) -> None:
        batch = batches.take(0.0)
        if batch is None:
            return
        batches.gather(batch, 0.0)
        if kind == "accepted":
            batches.accepted(batch, list(batch.ids), 0.0)
        elif kind == "again":
            batches.again(batch, 0.0)
        else:
            for target_id in list(batch.ids):
                batches.refused(batch, target_id, Ending(Reason.REJECTED), 0.0)

    return give


def run(seed: int) -> Side:
    draw = Random(seed)
    quick, thorough = Side(asks_first=True), Side(asks_first=False)
    for offset in range(STEPS):
        names = draw.sample(("p", "q"), draw.choice((1, 1, 1, 1, 2)))
        metadata = Metadata(
            draw.choice(("visitor", "visitor", "account")),
            draw.choice(("custom", "custom", "agent")),
            draw.choice(("v", "v", "w")),
            {name: draw.choice(draw.choice((CONTENTS[:2], CONTENTS))) for name in names},
        )
        occurred_at = 100_000 + draw.choice((0, 0, 1, offset * 500, offset * 1_000))
        for side in (quick, thorough):
            side.take_in(metadata, offset, occurred_at)
        answer = answers(draw)
        if draw.random() < 0.9:
            for side in (quick, thorough):
                side.send(answer)
        assert quick.told == thorough.told
    return quick


@given(seed=st.integers(min_value=0, max_value=2**32))
def test_a_delivery_that_ends_at_once_ends_the_same_way_if_it_is_offered(seed: int) -> None:
    run(seed)


def test_some_deliveries_end_at_once() -> None:
    assert sum(run(seed).at_once for seed in range(15)) > 6
