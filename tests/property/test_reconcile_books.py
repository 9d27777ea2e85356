"""The counts of `flagpost reconcile` for random histories are compared with those of a naive model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import assume, given
from hypothesis import strategies as st

from flagpost_consumer.commands.reconcile.counting import (
    Books,
    Counts,
    PartitionFacts,
    Published,
    size_of_union,
)
from flagpost_consumer.commands.reconcile.reading import PORTION_OFFSETS, portions
from flagpost_consumer.commands.reconcile.settled import Settled
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_schemas import LedgerEntry

KINDS = st.sampled_from(
    [(Kind.TRACK,), (Kind.TRACK, Kind.VISITOR_METADATA), (Kind.ACCOUNT_METADATA,), (Kind.UNKNOWN,)]
)
ROWS = st.sampled_from([None, ("checkout", "treatment"), ("checkout", "off"), ("search", None)])
ENDINGS = st.sampled_from([outcome.value for outcome in Outcome])
PRECEDENCE = ["delivered", "dead_lettered", "duplicate", "dropped"]
Identity = tuple[int, Kind]


@dataclass
class History:
    """The history of one partition: records, settlements in the order of the ledger, a commit."""

    records: list[Published] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    committed: int = 0
    replayed: set[Identity] = field(default_factory=set)

    def books(self, span: Span | None = None, chunk: int = 3) -> Books:
        end = max((record.offset for record in self.records), default=-1) + 1
        counted = Span(0, end) if span is None else span
        settled = Settled(counted)
        for start in range(0, len(self.entries), chunk):
            settled.add(self.entries[start : start + chunk])
        books = Books()
        facts = PartitionFacts(settled, self.committed, self.replayed)
        books.count({0: facts}, [r for r in self.records if counted.first <= r.offset < counted.end])
        return books


def settle(offset: int, kind: Kind, outcome: str, unseen: int = 0) -> LedgerEntry:
    return LedgerEntry(offset=offset, kind=kind.value, outcome=outcome, reason="ok", unseen=unseen)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Each delivery below the commit is settled, perhaps repeatedly by former members. Offsets have holes."""
    history = History()
    offset = draw(st.integers(0, 5))
    below = draw(st.integers(0, 15))
    for number in range(draw(st.integers(0, 18))):
        offset += draw(st.integers(1, 3))
        kinds = draw(KINDS)
        row = draw(ROWS) if Kind.TRACK in kinds else None
        history.records.append(Published(0, offset, kinds, row))
        # A delivery that is handed back (returned) is in no ledger: another member settles it, or it stays pending.
        for kind in kinds:
            for _ in range(draw(st.integers(1 if number < below else 0, 3))):
                ending = draw(ENDINGS)
                history.entries.append(settle(offset, kind, ending, draw(st.integers(0, 2))))
                if ending == "dead_lettered" and draw(st.booleans()):
                    history.replayed.add((offset, kind))
        if number < below:
            history.committed = offset + 1
    history.entries = draw(st.permutations(history.entries))
    return history


def ended(history: History, identity: Identity) -> list[str]:
    return [e.outcome for e in history.entries if (e.offset, Kind(e.kind)) == identity]


def modelled(history: History) -> dict[object, Counter[str]]:
    """The same counts, by going through all entries for every delivery."""
    tables: dict[object, Counter[str]] = {}
    for record in history.records:
        for kind in record.kinds:
            metadata = kind in (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA)
            counts = tables.setdefault("metadata" if metadata else record.row, Counter())
            endings = ended(history, (record.offset, kind))
            counts["published"] += 1
            counts["sent_again"] += max(0, endings.count("delivered") - 1)
            best = next((outcome for outcome in PRECEDENCE if outcome in endings), None)
            missing = "pending" if record.offset >= history.committed else "unexplained"
            counts[best or missing] += 1
            if best == "dead_lettered" and (record.offset, kind) in history.replayed:
                counts["replayed"] += 1
            if kind is Kind.TRACK:
                same = [e for e in history.entries if (e.offset, e.kind) == (record.offset, kind)]
                counts["unseen"] += sum(e.unseen for e in same)
    return tables


COLUMNS = (
    "published", "delivered", "duplicate", "dropped", "dead_lettered", "replayed", "sent_again", "pending",
    "unexplained", "unseen",
)  # fmt: skip


@given(histories())
def test_the_books_are_those_of_the_naive_model(history: History) -> None:
    books, model = history.books(), modelled(history)
    tables: list[tuple[object, Counts]] = [
        *books.rows.items(),
        (None, books.other),
        ("metadata", books.metadata),
    ]
    for row, counts in tables:
        expected = model.get(row, Counter())
        assert {name: getattr(counts, name) for name in COLUMNS} == {name: expected[name] for name in COLUMNS}
    assert set(model) <= {row for row, _ in tables}


@given(histories())
def test_every_row_adds_up(history: History) -> None:
    books = history.books()
    for each in (*books.rows.values(), books.other, books.metadata, books.totals):
        settled = each.delivered + each.duplicate + each.dropped + each.dead_lettered
        assert each.published == settled + each.pending + each.unexplained
        assert each.replayed <= each.dead_lettered


@given(histories())
def test_nothing_is_unexplained_if_nothing_was_removed(history: History) -> None:
    assert history.books().unexplained == 0


@given(histories(), st.data())
def test_a_delivery_below_the_commit_that_the_ledger_lost_is_found(
    history: History, data: st.DataObject
) -> None:
    below = [entry for entry in history.entries if entry.offset < history.committed]
    assume(below)
    removed = data.draw(st.sampled_from(below))
    identity = (removed.offset, Kind(removed.kind))
    history.entries = [e for e in history.entries if (e.offset, Kind(e.kind)) != identity]
    books = history.books()
    assert books.unexplained == 1
    assert [(each.offset, each.kind) for each in books.examples] == [identity]


@given(histories(), st.integers(0, 40), st.integers(0, 40))
def test_only_the_window_is_counted(history: History, first: int, length: int) -> None:
    span = Span(first, first + length)
    inside = [r for r in history.records if span.first <= r.offset < span.end]
    books = history.books(span)
    assert books.totals.published + books.metadata.published == sum(len(r.kinds) for r in inside)
    assert books.unexplained == 0


@given(st.lists(histories(), min_size=1, max_size=3))
def test_partitions_counted_together_have_the_same_counts_as_one_by_one(partitions: list[History]) -> None:
    together, alone = Books(), [history.books() for history in partitions]
    facts, records = {}, []
    for number, history in enumerate(partitions):
        settled = Settled(Span(0, 1_000))
        settled.add(history.entries)
        facts[number] = PartitionFacts(settled, history.committed, history.replayed)
        records += [record._replace(partition=number) for record in history.records]
    together.count(facts, sorted(records, key=lambda record: record.offset))
    for row, counts in together.rows.items():
        expected = Counts()
        for books in alone:
            expected.add(books.rows.get(row, Counts()))
        assert counts == expected
    assert together.totals.published == sum(books.totals.published for books in alone)
    assert together.metadata.published == sum(books.metadata.published for books in alone)


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 3 * PORTION_OFFSETS // 2)))
def test_every_partition_is_read_once_and_few_are_held_together(sizes: dict[int, int]) -> None:
    spans = {number: Span(7, 7 + size) for number, size in sizes.items()}
    read = list(portions(spans))
    assert [number for portion in read for number in portion] == list(sizes)
    assert all(
        len(portion) == 1 or sum(sizes[number] for number in portion) <= PORTION_OFFSETS for portion in read
    )


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_offsets_of_several_gaps_count_once(intervals: list[tuple[int, int]]) -> None:
    assert size_of_union(intervals) == len(
        {offset for first, end in intervals for offset in range(first, end)}
    )
