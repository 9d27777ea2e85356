"""The aged table, its queue and its growth, compared with a plain list of entries in the order in which they came."""

from __future__ import annotations

import hashlib
import tracemalloc
from itertools import islice

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from example_counts import examples
from flagpost_consumer.core.books.aged_table import KEY_BYTES, NEVER_MS, AgedTable

WITHIN_MS = 10
keys = st.integers(0, 40).map(lambda number: number.to_bytes(KEY_BYTES))
"""Few, so that they occur again, and alike: the bytes of one may begin within another key and its time."""
times = st.integers(0, 60)
offsets = st.integers(0, 5)
Entry = tuple[bytes, int, int]


def digest(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=KEY_BYTES).digest()


class ClaimsAgainstAList(RuleBasedStateMachine):
    """As `Dedupe` uses it: a key may have several entries, which never change."""

    def __init__(self) -> None:
        super().__init__()
        self.table = AgedTable("q")
        self.entries: list[Entry] = []
        self.removed = False

    @rule(key=keys, at=times, offset=offsets)
    def claim(self, key: bytes, at: int, offset: int) -> None:
        near = [entry for entry in self.entries if entry[0] == key and abs(entry[1] - at) < WITHIN_MS]
        found = self.table.claim(key, at, WITHIN_MS, offset)
        if near:
            assert found in near
        else:
            assert found is None
            self.entries.append((key, at, offset))

    @rule(first=st.integers(0, 10**6), count=st.integers(1, 120), at=times)
    def claim_many(self, first: int, count: int, at: int) -> None:
        for number in range(first, first + count):
            self.claim(digest(number), at, number)

    @rule(key=keys, at=times, offset=offsets)
    def remove_any(self, key: bytes, at: int, offset: int) -> None:
        assert self.table.remove(key, at, offset) is ((key, at, offset) in self.entries)
        if (key, at, offset) in self.entries:
            self.entries.remove((key, at, offset))
            self.removed = True

    @precondition(lambda self: self.entries)
    @rule(place=st.integers(0, 10**6))
    def remove(self, place: int) -> None:
        self.remove_any(*self.entries[place % len(self.entries)])

    @rule(before=times)
    def forget_before(self, before: int) -> None:
        """Only older entries are forgotten, until the first one in the queue is not older."""
        while len(self.table) and self.table.oldest_ms < before:
            self.table.forget_before(before, 3)
        forgotten = [entry for entry in self.entries if not self.has(entry)]
        assert all(at < before for _, at, _ in forgotten)
        self.entries = [entry for entry in self.entries if entry not in forgotten]
        if not self.removed:
            assert not self.entries or self.entries[0][1] >= before

    @precondition(lambda self: self.entries)
    @rule()
    def forget_first(self) -> None:
        """The entry that came first is forgotten; after removals perhaps a later one, which was claimed again."""
        while not self.table.forget_first():
            pass
        forgotten = [entry for entry in self.entries if not self.has(entry)]
        assert len(forgotten) == 1
        assert self.removed or forgotten == self.entries[:1]
        self.entries.remove(*forgotten)

    @rule()
    def forget_all(self) -> None:
        assert self.table.forget_before(NEVER_MS, 10**6) == len(self.entries)
        self.entries = []

    def has(self, entry: Entry) -> bool:
        """Whether the table has an entry; changes nothing."""
        bucket = self.table._buckets[self.table._number(hash(entry[0]))]
        return self.table._find(bucket, self.table._pack(*entry)) >= 0

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.entries)
        assert self.entries or self.table.oldest_ms == NEVER_MS
        assert all(self.has(entry) for entry in islice(self.entries, 50))


class ValuesAgainstADict(RuleBasedStateMachine):
    """As `SentValues` uses it: a key has one entry, whose time changes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = AgedTable("q8s")
        self.entries: dict[bytes, tuple[int, int, bytes]] = {}

    @rule(
        key=keys | st.integers(0, 500).map(digest),
        at=times,
        offset=offsets,
        rest=st.binary(min_size=8, max_size=8),
    )
    def put(self, key: bytes, at: int, offset: int, rest: bytes) -> None:
        assert self.table.put(key, at, offset, rest) is (key not in self.entries)
        self.entries[key] = (at, offset, rest)

    @rule(before=times)
    def forget_before(self, before: int) -> None:
        """Only older entries are forgotten; a newer one that was queued first may keep others."""
        while len(self.table) and self.table.oldest_ms < before:
            self.table.forget_before(before, 4)
        kept = {key: entry for key, entry in self.entries.items() if self.table.get(key) is not None}
        assert all(self.entries[key][0] < before for key in self.entries.keys() - kept.keys())
        self.entries = kept

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.entries)
        for key, entry in self.entries.items():
            assert self.table.get(key) == (key, *entry)


TestClaimsAgainstAList = ClaimsAgainstAList.TestCase
TestClaimsAgainstAList.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
TestValuesAgainstADict = ValuesAgainstADict.TestCase
TestValuesAgainstADict.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


def test_an_entry_takes_less_than_a_hundred_bytes_in_all() -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    table = AgedTable("q")
    for number in range(50_000):
        table.claim(digest(number), number, WITHIN_MS, number)
        table.forget_before(number - 20_000, 2)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 20_001
    assert (after - before) / len(table) < 100


def test_entries_that_are_added_and_removed_repeatedly_take_no_memory() -> None:
    """A visitor whose events are rejected claims and releases keys without end."""
    table = AgedTable("q")
    for number in range(1_000):
        table.claim(digest(number), 5_000, WITHIN_MS, number)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(30_000):
        assert table.claim(digest(10**6), 5_000, WITHIN_MS, number) is None
        assert table.remove(digest(10**6), 5_000, number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 150_000, "the queue alone would take 360,000 bytes"
    assert len(table) == 1_000
    assert (
        sum(table.claim(digest(number), 5_000, WITHIN_MS, 0) is not None for number in range(1_000)) == 1_000
    )


def test_the_only_entry_may_be_added_and_removed_without_end() -> None:
    """Its bucket is empty when the queue is shortened."""
    table = AgedTable("q")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(10_000):
        assert table.claim(digest(1), 5_000, WITHIN_MS, number) is None
        assert table.remove(digest(1), 5_000, number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 60_000, "the queue alone would take 120,000 bytes"
    assert (len(table), table.oldest_ms) == (0, NEVER_MS)


def test_a_key_that_only_begins_within_another_entry_is_not_there() -> None:
    """The other key here is the second half of a key and the time after it."""
    beginnings = 0
    for number in range(256):  # the hash decides whether both lie in one bucket: about one time in four
        table = AgedTable("q")
        key, at = digest(number), 5_000
        within = key[8:] + at.to_bytes(8, "little")
        table.claim(key, at, WITHIN_MS, 1)
        beginnings += table._number(hash(key)) == table._number(hash(within))
        assert table.get(within) is None
        assert table.near(within, at, WITHIN_MS) is None
        assert not table.remove(within, 1, 1)
        assert table.put(within, at, 2), "it is added, and replaces nothing"
        assert table.get(key) == (key, at, 1)
        assert table.get(within) == (within, at, 2)
    assert beginnings > 0


def test_a_full_table_grows_by_one_bucket_at_a_time() -> None:
    """Only the entries of one bucket are moved, however many entries there are."""
    table = AgedTable("q")
    for number in range(20_000):
        buckets = list(table._buckets)
        table.claim(digest(number), 5_000, WITHIN_MS, number)
        if number % 500 == 0:
            changed = sum(a is not b for a, b in zip(buckets, table._buckets, strict=False))
            assert changed <= 2
            assert len(table._buckets) - len(buckets) <= 1
