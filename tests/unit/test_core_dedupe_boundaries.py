"""Duplicates at the boundaries: one ttl apart, the latest event that is judged exactly, the limit of entries.

The times are tried one by one around each boundary, with a ttl of a few ms, against the rule as it is written:
less than one ttl apart, on either side, is a duplicate.
"""

from __future__ import annotations

from itertools import product

import pytest

from flagpost_consumer.core.books.aged_table import NEVER_MS
from flagpost_consumer.core.books.dedupe import SWEEP_ENTRIES, Dedupe, DedupeCounts

TTL_MS = 5
KEY, OTHER = b"k" * 16, b"o" * 16
SLICE_EDGES = range(20, 26)
"""Consecutive times over one ttl and one ms more."""


def dedupe(max_entries: int = 1_000, ttl_ms: int = TTL_MS) -> tuple[Dedupe, DedupeCounts]:
    counts = DedupeCounts()
    return Dedupe(ttl_ms / 1000, max_entries, counts), counts


@pytest.mark.parametrize("claimed_at", SLICE_EDGES)
def test_less_than_one_ttl_apart_is_a_duplicate_whatever_the_time_of_the_claim(claimed_at: int) -> None:
    for apart in range(-2 * TTL_MS, 2 * TTL_MS + 1):
        subject, _ = dedupe()
        assert subject.claim(KEY, claimed_at, 7) is None
        assert subject.claim(KEY, claimed_at + apart, 8) == (7 if abs(apart) < TTL_MS else None), apart
        assert subject.claim(OTHER, claimed_at, 9) is None


@pytest.mark.parametrize("claimed_at", SLICE_EDGES)
def test_a_restored_claim_has_duplicates_like_any_other(claimed_at: int) -> None:
    for apart in range(-2 * TTL_MS, 2 * TTL_MS + 1):
        subject, _ = dedupe()
        subject.restore(KEY, claimed_at, 7)
        assert subject.claim(KEY, claimed_at + apart, 8) == (7 if abs(apart) < TTL_MS else None), apart


@pytest.mark.parametrize("watermark", range(30, 36))
def test_events_up_to_one_ttl_late_are_judged_exactly(watermark: int) -> None:
    """However old the claim is of which such an event may be a duplicate."""
    for claimed_at in range(watermark - 3 * TTL_MS, watermark):
        for late_ms in range(TTL_MS + 1):
            subject, counts = dedupe()
            assert subject.claim(KEY, claimed_at, 7) is None
            assert subject.claim(OTHER, watermark, 8) is None
            occurred_at = watermark - late_ms
            expected = 7 if abs(occurred_at - claimed_at) < TTL_MS else None
            assert subject.claim(KEY, occurred_at, 9) == expected, (claimed_at, late_ms)
            assert counts.late == 0


@pytest.mark.parametrize("watermark", range(30, 36))
def test_events_more_than_one_ttl_late_are_counted(watermark: int) -> None:
    for late_ms in range(2 * TTL_MS):
        subject, counts = dedupe()
        subject.claim(OTHER, watermark, 7)
        subject.claim(KEY, watermark - late_ms, 8)
        assert counts.late == (late_ms > TTL_MS), late_ms


@pytest.mark.parametrize("watermark", range(30, 36))
def test_a_claim_is_kept_from_the_oldest_needed_time_on(watermark: int) -> None:
    """That time is at least two ttl behind the watermark, and less than three."""
    subject, _ = dedupe()
    subject.observe(watermark)
    needed_from_ms = subject.needed_from_ms
    assert watermark - 3 * TTL_MS < needed_from_ms <= watermark - 2 * TTL_MS
    for occurred_at in range(needed_from_ms - 1, needed_from_ms + 2):
        restored, counts = dedupe()
        restored.observe(watermark)
        restored.restore(KEY, occurred_at, 7)
        assert counts.entries == (occurred_at >= needed_from_ms)
        lived, lived_counts = dedupe()
        lived.claim(KEY, occurred_at, 7)
        lived.observe(watermark)
        assert lived_counts.entries == counts.entries


def test_two_claims_of_a_key_one_ttl_apart_stand_side_by_side() -> None:
    subject, counts = dedupe()
    assert subject.claim(KEY, 20, 7) is None
    assert subject.claim(KEY, 25, 8) is None
    assert counts.entries == 2
    assert [subject.claim(KEY, at, 9) for at in (16, 24, 29)] == [7, 7, 8]
    assert subject.claim(KEY, 15, 9) is None


def test_the_watermark_never_goes_back() -> None:
    subject, counts = dedupe()
    for at in (40, 36, 35):
        subject.claim(KEY, at, at)
    subject.observe(10)
    subject.advance(10)
    needed_from_ms = subject.needed_from_ms
    subject.claim(OTHER, 34, 1)
    assert counts.late == 1
    assert subject.needed_from_ms == needed_from_ms == 30


def test_a_restored_claim_moves_the_watermark_as_the_claim_itself_did() -> None:
    subject, counts = dedupe()
    subject.restore(OTHER, 20, 6)
    subject.restore(KEY, 40, 7)
    assert subject.needed_from_ms == 30
    assert counts.entries == 1, "the older one is outdated"
    subject.restore(OTHER, 36, 8)
    assert subject.needed_from_ms == 30
    subject.claim(b"late" * 4, 34, 9)
    assert counts.late == 1


# Releasing


@pytest.mark.parametrize("claimed_at", SLICE_EDGES)
def test_only_the_delivery_that_made_a_claim_releases_it(claimed_at: int) -> None:
    subject, counts = dedupe()
    subject.claim(KEY, claimed_at, 7)
    for key, at, offset in product((KEY, OTHER), range(claimed_at - 1, claimed_at + 2), (6, 7, 8)):
        if (key, at, offset) != (KEY, claimed_at, 7):
            subject.release(key, at, offset)
    assert subject.claim(KEY, claimed_at, 9) == 7
    subject.release(KEY, claimed_at, 7)
    assert counts.entries == 0
    subject.release(KEY, claimed_at, 7)
    assert counts.entries == 0
    assert subject.claim(KEY, claimed_at, 9) is None


# Limits


def test_at_the_limit_no_claim_is_evicted_and_one_more_evicts_one() -> None:
    subject, counts = dedupe(max_entries=10)
    for number in range(10):
        subject.claim(bytes([number]) * 16, 100, number)
    assert (counts.entries, counts.evicted_early) == (10, 0)
    subject.claim(OTHER, 100 + TTL_MS, 10)
    assert (counts.entries, counts.evicted_early) == (10, 1)
    assert subject.claim(OTHER, 100 + TTL_MS, 11) == 10, "the newest stays"


def test_outdated_claims_make_room_first_and_are_not_counted_as_early() -> None:
    quiet, counts = dedupe(max_entries=2 * SWEEP_ENTRIES)
    busy = Dedupe(TTL_MS / 1000, 2 * SWEEP_ENTRIES, counts)
    for number in range(2 * SWEEP_ENTRIES):
        quiet.claim(number.to_bytes(16), 20, number)
    quiet.claim(KEY, 1_000, 7)
    assert counts.entries == SWEEP_ENTRIES + 1, "half of what is outdated is still held"
    for number in range(2 * SWEEP_ENTRIES - 1):
        busy.claim(number.to_bytes(16), 1_000, number)
    assert (counts.entries, counts.evicted_early) == (2 * SWEEP_ENTRIES, 0)
    assert quiet.claim(KEY, 1_000, 9) == 7


def test_at_the_limit_the_oldest_claim_that_may_have_a_duplicate_is_not_outdated() -> None:
    counts = DedupeCounts()
    newer, older = (Dedupe(TTL_MS / 1000, 3, counts) for _ in range(2))
    newer.claim(KEY, 100, 1)
    newer.claim(OTHER, 100 + 2 * TTL_MS, 2)
    assert newer.needed_from_ms == 100
    older.claim(KEY, 90, 3)
    older.claim(OTHER, 90, 4)
    assert newer.repeated(KEY, 100) == 1
    assert older.repeated(KEY, 90) is None, "the oldest gives way"


def test_at_the_limit_the_partition_with_the_most_of_equally_old_claims_evicts_one() -> None:
    counts = DedupeCounts()
    few, many = (Dedupe(TTL_MS / 1000, 5, counts) for _ in range(2))
    for subject, count in ((few, 2), (many, 4)):
        for number in range(count):
            subject.claim(bytes([number]) * 16, 100, number)
    assert (len(few), len(many)) == (2, 3)


def test_claims_restored_beyond_the_limit_are_evicted_a_few_at_each_claim() -> None:
    counts = DedupeCounts()
    restored = [Dedupe(TTL_MS / 1000, 100, DedupeCounts()) for _ in range(2)]
    for partition, each in enumerate(restored):
        for number in range(100):
            each.restore(bytes([partition, number]) * 8, 20, number)
        each.count_in(counts)
    assert counts.entries == 200
    restored[0].claim(OTHER, 20, 100)
    assert counts.entries == 201 - SWEEP_ENTRIES
    restored[0].claim(KEY, 20, 101)
    assert (counts.entries, counts.evicted_early) == (100, 102)


def test_a_restore_keeps_to_the_limit_too() -> None:
    subject, counts = dedupe(max_entries=10)
    for number in range(10):
        subject.restore(bytes([number]) * 16, 100, number)
    assert (counts.entries, counts.evicted_early) == (10, 0)
    subject.restore(OTHER, 100, 10)
    assert (counts.entries, counts.evicted_early) == (10, 1)


def test_a_claim_restored_twice_is_one_and_the_first_one_stands() -> None:
    subject, counts = dedupe()
    subject.restore(KEY, 20, 7)
    subject.restore(KEY, 21, 8)
    assert counts.entries == 1
    assert subject.claim(KEY, 20, 9) == 7


def test_one_claim_frees_a_bounded_number_of_outdated_ones() -> None:
    subject, counts = dedupe(max_entries=10_000)
    for number in range(3 * SWEEP_ENTRIES):
        subject.claim(number.to_bytes(16), 20, number)
    held = []
    for at in range(1_000, 1_004):
        subject.claim(at.to_bytes(16), at, at)
        held.append(counts.entries)
    assert held == [2 * SWEEP_ENTRIES + 1, SWEEP_ENTRIES + 2, 3, 4]


def test_an_observed_time_frees_all_outdated_claims() -> None:
    subject, counts = dedupe(max_entries=10_000)
    for number in range(3 * SWEEP_ENTRIES):
        subject.restore(number.to_bytes(16), 20, number)
    subject.observe(1_000)
    assert counts.entries == 0


# A ttl of 0


def test_without_a_ttl_nothing_is_a_duplicate_nothing_is_kept_and_nothing_is_needed() -> None:
    subject, counts = dedupe(ttl_ms=0)
    for _ in range(3):
        assert subject.claim(KEY, 20, 7) is None
        subject.restore(KEY, 20, 7)
        subject.observe(20)
        subject.release(KEY, 20, 7)
    assert counts == DedupeCounts()
    assert subject.needed_from_ms == NEVER_MS


def test_a_ttl_may_be_less_than_a_second() -> None:
    subject, _ = dedupe(ttl_ms=1)
    assert subject.claim(KEY, 20, 7) is None
    assert subject.repeated(KEY, 20) == subject.claim(KEY, 20, 8) == 7
    assert subject.claim(KEY, 21, 9) is None
    subject.restore(OTHER, 21, 10)
    assert subject.claim(OTHER, 21, 11) == 10


# Counts


def test_claims_that_move_to_other_counts_are_counted_only_there() -> None:
    subject, before = dedupe(max_entries=2)
    for number in range(3):
        subject.claim(bytes([number]) * 16, 20 + 4 * number, number)
    process = DedupeCounts(entries=5, late=1, evicted_early=1)
    subject.count_in(process)
    assert (before.entries, before.evicted_early) == (0, 0)
    assert (process.entries, process.late, process.evicted_early) == (7, 1, 2)
    subject.forget()
    assert process.entries == 5
    assert subject.claim(bytes([2]) * 16, 28, 9) is None


@pytest.mark.parametrize("how", ["forgotten", "moved"])
def test_outdated_claims_that_are_not_swept_yet_leave_the_counts_with_their_partition(how: str) -> None:
    subject, counts = dedupe()
    for number in range(2 * SWEEP_ENTRIES):
        subject.claim(number.to_bytes(16), 20, number)
    subject.claim(KEY, 1_000, 7)
    assert counts.entries == SWEEP_ENTRIES + 1
    others = DedupeCounts()
    if how == "forgotten":
        subject.forget()
    else:
        subject.count_in(others)
    assert (counts.entries, others.entries) == (0, 0 if how == "forgotten" else SWEEP_ENTRIES + 1)
