"""Offsets beyond the committed one that the ledger settles, at the edges of the chunks in which they are stored."""

from __future__ import annotations

import tracemalloc

import pytest

from flagpost_consumer.core.books.aged_table import NEVER_MS
from flagpost_consumer.core.books.restoration import SLACK_OFFSETS, Restoration, Settled
from flagpost_consumer.core.books.settled_before import CHUNK_OFFSETS, SettledBefore
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import DedupeSettings

EDGES = [0, 1, CHUNK_OFFSETS - 1, CHUNK_OFFSETS, CHUNK_OFFSETS + 1, 2 * CHUNK_OFFSETS - 1, 2 * CHUNK_OFFSETS]


@pytest.mark.parametrize("offset", EDGES)
def test_an_offset_is_distinguished_from_its_neighbours(offset: int) -> None:
    subject = SettledBefore()
    assert not subject
    subject.add(offset, Kind.TRACK)
    assert subject
    found = {asked: subject.kinds(asked) for asked in range(max(0, offset - 1), offset + 2)}
    assert {asked for asked, kinds in found.items() if kinds} == {offset}
    assert found[offset] == {Kind.TRACK}


def test_each_kind_of_an_offset_is_remembered_by_itself() -> None:
    for kind in Kind:
        subject = SettledBefore()
        subject.add(7, kind)
        subject.add(7, kind)
        assert subject.kinds(7) == {kind}
    together = SettledBefore()
    for kind in Kind:
        together.add(7, kind)
    assert together.kinds(7) == set(Kind)


def test_a_chunk_is_kept_until_the_first_offset_beyond_it_is_asked_for() -> None:
    subject = SettledBefore()
    subject.add(CHUNK_OFFSETS - 1, Kind.TRACK)
    assert subject.kinds(CHUNK_OFFSETS - 2) == frozenset()
    assert subject.kinds(CHUNK_OFFSETS - 1) == {Kind.TRACK}
    assert subject, "the whole chunk has not been passed"
    assert subject.kinds(CHUNK_OFFSETS) == frozenset()
    assert not subject


def test_asking_ahead_forgets_nothing() -> None:
    settled = SettledBefore()
    settled.add(1, Kind.TRACK)
    settled.add(3 * CHUNK_OFFSETS, Kind.UNKNOWN)
    assert settled.has(3 * CHUNK_OFFSETS, Kind.UNKNOWN)
    assert not settled.has(3 * CHUNK_OFFSETS, Kind.TRACK)
    assert not settled.has(9 * CHUNK_OFFSETS, Kind.UNKNOWN)
    assert settled.kinds(1) == {Kind.TRACK}


def test_the_chunk_that_is_asked_for_and_later_ones_are_kept() -> None:
    subject = SettledBefore()
    for number in range(4):
        subject.add(number * CHUNK_OFFSETS, Kind.TRACK)
    assert subject.kinds(2 * CHUNK_OFFSETS) == {Kind.TRACK}
    assert subject.kinds(3 * CHUNK_OFFSETS) == {Kind.TRACK}
    assert subject.kinds(10 * CHUNK_OFFSETS) == frozenset()
    assert not subject


def test_a_partition_that_is_read_from_a_high_offset_needs_memory_only_for_settled_offsets() -> None:
    subject = SettledBefore()
    far = 10**15
    for offset in range(far, far + 3):
        subject.add(offset, Kind.UNKNOWN)
    assert sum(map(len, subject._chunks.values())) <= 2 * CHUNK_OFFSETS
    assert subject.kinds(far + 2) == {Kind.UNKNOWN}


# The bound


def take(restoration: Restoration, *offsets: int) -> None:
    settled: list[Settled] = [(offset, Kind.TRACK, Outcome.DELIVERED, None, None) for offset in offsets]
    assert restoration.take(3, settled) == len(offsets)


def test_offsets_in_the_ledger_far_beyond_the_log_settle_nothing_and_take_no_memory() -> None:
    """Before the fix, each took 4 KB: 100,000 offsets far apart filled 400 MB before any record was read."""
    end = 5_000
    restoration = Restoration(0, DedupeSettings(), log_end=end)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    take(restoration, *range(2**40, 2**40 + 20_000 * CHUNK_OFFSETS, CHUNK_OFFSETS), 2**62)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4_000_000
    assert not restoration.settled
    take(restoration, 4_000, end + SLACK_OFFSETS - 1, end + SLACK_OFFSETS)
    assert restoration.settled.kinds(4_000) == {Kind.TRACK}
    assert restoration.settled.kinds(end + SLACK_OFFSETS - 1) == {Kind.TRACK}
    assert restoration.settled.kinds(end + SLACK_OFFSETS) == frozenset()


def test_an_offset_far_beyond_the_log_keeps_no_part_of_the_ledger_for_ever() -> None:
    """A ledger record that settles an uncommitted offset is read at each restart: this one would be for years."""
    restoration = Restoration(0, DedupeSettings(), log_end=5_000)
    take(restoration, 2**62)
    restoration.finish(9)
    assert restoration.window.oldest_needed(10, NEVER_MS) == 9
