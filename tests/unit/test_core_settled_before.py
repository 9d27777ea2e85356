"""What the ledger settles beyond the committed offset, at the edges of the chunks in which it is kept."""

from __future__ import annotations

import pytest

from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.settled_before import CHUNK_OFFSETS, SettledBefore

EDGES = [0, 1, CHUNK_OFFSETS - 1, CHUNK_OFFSETS, CHUNK_OFFSETS + 1, 2 * CHUNK_OFFSETS - 1, 2 * CHUNK_OFFSETS]


@pytest.mark.parametrize("offset", EDGES)
def test_an_offset_is_told_from_its_neighbours(offset: int) -> None:
    subject = SettledBefore()
    assert not subject
    subject.add(offset, Kind.TRACK)
    assert subject
    found = {asked: subject.kinds(asked) for asked in range(max(0, offset - 1), offset + 2)}
    assert {asked for asked, kinds in found.items() if kinds} == {offset}
    assert found[offset] == {Kind.TRACK}


def test_each_kind_of_an_offset_is_told_by_itself() -> None:
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


def test_the_chunk_that_is_asked_for_and_later_ones_are_kept() -> None:
    subject = SettledBefore()
    for number in range(4):
        subject.add(number * CHUNK_OFFSETS, Kind.TRACK)
    assert subject.kinds(2 * CHUNK_OFFSETS) == {Kind.TRACK}
    assert subject.kinds(3 * CHUNK_OFFSETS) == {Kind.TRACK}
    assert subject.kinds(10 * CHUNK_OFFSETS) == frozenset()
    assert not subject


def test_a_partition_that_is_read_from_far_on_needs_memory_only_for_what_is_settled() -> None:
    subject = SettledBefore()
    far = 10**15
    for offset in range(far, far + 3):
        subject.add(offset, Kind.UNKNOWN)
    assert sum(map(len, subject._chunks.values())) <= 2 * CHUNK_OFFSETS
    assert subject.kinds(far + 2) == {Kind.UNKNOWN}
