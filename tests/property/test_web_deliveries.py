"""Deliveries that are counted one by one, in any order, have the same counts as those of `flagpost reconcile`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.commands.reconcile.counting import Books, Interval, PartitionFacts, Published, merged
from flagpost_consumer.commands.reconcile.settled import Delivered, Settled
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.web.deliveries import PAGE_OFFSETS, Deliveries
from flagpost_schemas import LedgerEntry

ROWS = st.sampled_from([("checkout", "a"), ("checkout", None), ("search", "off"), None])
KINDS = st.sampled_from(
    [(Kind.TRACK, Kind.VISITOR_METADATA), (Kind.TRACK,), (Kind.ACCOUNT_METADATA,), (Kind.UNKNOWN,)]
)
FIRST = PAGE_OFFSETS - 4
"""A few offsets before the end of a page."""
OFFSETS = st.integers(FIRST, FIRST + 9)


@st.composite
def entries(draw: st.DrawFn) -> LedgerEntry:
    reason = draw(st.sampled_from(Reason))
    unseen = draw(st.integers(0, 2))
    return LedgerEntry(
        draw(OFFSETS), draw(st.sampled_from(Kind)).value, reason.outcome.value, reason.value, unseen=unseen
    )


@dataclass
class Story:
    published: dict[int, Published] = field(default_factory=dict)
    settled: list[LedgerEntry] = field(default_factory=list)
    gaps: list[Interval] = field(default_factory=list)
    replayed: set[Delivered] = field(default_factory=set)
    commits: list[int] = field(default_factory=list)

    def books(self) -> Books:
        settled = Settled(Span(FIRST, FIRST + 10))
        settled.add(self.settled)
        facts = PartitionFacts(settled, self.commits[-1], self.replayed, list(merged(self.gaps)))
        books = Books()
        books.count({3: facts}, [self.published[offset] for offset in sorted(self.published)])
        return books

    def deliveries(self, random: Random) -> Deliveries:
        deliveries = Deliveries()
        facts: list[partial[None]] = [
            *(partial(deliveries.publish, record) for record in self.published.values()),
            *(partial(deliveries.settle, 3, entry) for entry in self.settled),
            *(partial(deliveries.lose, 3, *gap) for gap in self.gaps),
            *(partial(deliveries.replay, 3, each) for each in self.replayed),
        ]
        random.shuffle(facts)
        at = sorted(random.randint(0, len(facts)) for _ in self.commits)
        for place, commit in zip(reversed(at), reversed(self.commits), strict=True):
            facts.insert(place, partial(deliveries.commit, 3, commit))
        for fact in facts:
            fact()
        return deliveries


@st.composite
def stories(draw: st.DrawFn) -> Story:
    offsets = draw(st.sets(OFFSETS, max_size=8))
    published = {offset: Published(3, offset, draw(KINDS), draw(ROWS)) for offset in offsets}
    gaps = [(first, first + draw(st.integers(1, 3))) for first in draw(st.lists(OFFSETS, max_size=2))]
    return Story(
        published,
        draw(st.lists(entries(), max_size=12)),
        gaps,
        draw(st.sets(st.tuples(OFFSETS, st.sampled_from(Kind)), max_size=3)),
        draw(st.lists(st.integers(0, FIRST + 12), min_size=1, max_size=3)),
    )


@given(stories(), st.randoms(use_true_random=False))
def test_the_counts_are_those_of_reconcile_in_any_order(story: Story, random: Random) -> None:
    books, deliveries = story.books(), story.deliveries(random)
    shown = {row: counts for row, counts in deliveries.rows.items() if counts.published}
    assert shown == {row: counts for row, counts in books.rows.items() if counts.published}
    assert deliveries.other == books.other
    assert deliveries.metadata == books.metadata
    assert deliveries.totals == books.totals
