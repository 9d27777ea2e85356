"""Duplicates by event time, compared with a plain list of the claims."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from flagpost_consumer.core.books.dedupe import SWEEP_ENTRIES, Dedupe, DedupeCounts

TTL_MS = 10_000
KEYS = [bytes([number]) * 16 for number in range(4)]


def dedupe(max_entries: int = 1_000_000) -> tuple[Dedupe, DedupeCounts]:
    counts = DedupeCounts()
    return Dedupe(TTL_MS / 1000, max_entries, counts), counts


def test_less_than_one_ttl_apart_on_either_side_is_a_duplicate() -> None:
    subject, _ = dedupe()
    key = KEYS[0]
    assert subject.claim(key, 50_000, 1) is None
    assert subject.claim(key, 50_000, 2) == 1
    assert subject.claim(key, 59_999, 3) == 1
    assert subject.claim(key, 40_001, 4) == 1
    assert subject.claim(key, 60_000, 5) is None
    assert subject.claim(key, 40_000, 6) is None
    assert subject.claim(KEYS[1], 50_000, 7) is None


def test_a_released_claim_is_free() -> None:
    subject, counts = dedupe()
    assert subject.claim(KEYS[0], 1_000, 1) is None
    subject.release(KEYS[0], 1_000, 99)
    assert subject.claim(KEYS[0], 1_500, 2) == 1, "only the claim's own delivery releases it"
    subject.release(KEYS[0], 1_000, 1)
    assert counts.entries == 0
    assert subject.claim(KEYS[0], 1_500, 3) is None


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_duplicates_are_exact_for_events_at_most_one_ttl_late(seed: int) -> None:
    random = Random(seed)
    subject, counts = dedupe()
    claimed: dict[bytes, list[tuple[int, int]]] = {key: [] for key in KEYS}
    watermark = 100_000
    for offset in range(300):
        watermark += random.choice((0, 500, 4_000))
        occurred_at = watermark - random.randrange(TTL_MS + 1)
        key = random.choice(KEYS)
        expected = [at for time, at in claimed[key] if abs(time - occurred_at) < TTL_MS]
        found = subject.claim(key, occurred_at, offset)
        if expected:
            assert found in expected
        else:
            assert found is None
            claimed[key].append((occurred_at, offset))
            if random.random() < 0.1:
                subject.release(key, occurred_at, offset)
                claimed[key].pop()
    assert counts.late == 0


def test_events_later_than_one_ttl_are_counted() -> None:
    subject, counts = dedupe()
    subject.claim(KEYS[0], 100_000, 1)
    subject.claim(KEYS[1], 90_000, 2)
    assert counts.late == 0
    subject.claim(KEYS[2], 89_999, 3)
    assert counts.late == 1
    subject.claim(KEYS[3], 89_999, 4)
    assert counts.late == 2


def test_outdated_claims_are_forgotten_a_few_at_each_claim() -> None:
    subject, counts = dedupe()
    for number in range(10_000):
        subject.claim(number.to_bytes(16, "big"), 1_000, number)
    assert counts.entries == 10_000
    subject.claim(KEYS[0], 1_000_000, 10_000)
    assert counts.entries >= 10_001 - SWEEP_ENTRIES
    for number in range(10_000 // SWEEP_ENTRIES + 1):
        subject.claim(number.to_bytes(16, "little"), 1_000_000, 20_000 + number)
    assert counts.entries < 300
    subject.forget()
    assert counts.entries == 0


def test_at_the_limit_the_oldest_claims_are_evicted_early_and_counted() -> None:
    subject, counts = dedupe(max_entries=100)
    for number in range(150):
        subject.claim(number.to_bytes(16, "big"), number * 200, number)
    assert counts.entries == 100
    assert counts.evicted_early == 50
    for number in range(50, 150):
        assert subject.claim(number.to_bytes(16, "big"), number * 200, 999) == number, "the newest stay"


def test_at_the_limit_claims_of_one_time_are_evicted_in_the_order_in_which_they_came() -> None:
    """Before the fix, the newest of them were evicted first: those whose duplicates are most likely to follow."""
    subject, counts = dedupe(max_entries=100)
    for number in range(150):
        subject.claim(number.to_bytes(16, "big"), 5_000, number)
    assert counts.entries == 100
    repeats = [subject.claim(number.to_bytes(16, "big"), 5_001, 999) for number in range(50, 150)]
    assert repeats == list(range(50, 150))


def test_at_the_limit_released_claims_are_skipped() -> None:
    """A released claim leaves its place in the queue, which is skipped: it is not a claim that can be evicted."""
    subject, counts = dedupe(max_entries=100)
    for number in range(20):
        key = number.to_bytes(16, "big")
        subject.claim(key, 5_000, number)
        subject.release(key, 5_000, number)
    for number in range(20, 121):
        subject.claim(number.to_bytes(16, "big"), 5_000, number)
    assert (counts.entries, counts.evicted_early, len(subject)) == (100, 1, 100)
    assert subject.repeated((20).to_bytes(16, "big"), 5_000) is None, "the oldest that is left"
    assert all(subject.repeated(number.to_bytes(16, "big"), 5_000) == number for number in range(21, 121))


def test_at_the_limit_old_claims_of_a_quiet_partition_are_evicted_before_a_busy_ones() -> None:
    """Before the fix, each partition evicted its own claims: a quiet one's, a day old, outlived a busy one's."""
    counts = DedupeCounts()
    quiet, busy = (Dedupe(TTL_MS / 1000, 100, counts) for _ in range(2))
    for number in range(60):
        quiet.claim(number.to_bytes(16, "big"), 1_000, number)
    now = 86_400_000
    for number in range(100):
        busy.claim(number.to_bytes(16, "big"), now, number)
    assert (counts.entries, counts.evicted_early) == (100, 60)
    assert all(busy.claim(number.to_bytes(16, "big"), now, 999) == number for number in range(100))
    busy.claim(b"x" * 16, now + 10 * TTL_MS, 1000)
    quiet.claim(b"y" * 16, 2_000, 1000)
    assert counts.evicted_early == 60, "what is outdated goes first, and not before its time"


def test_at_the_limit_two_equally_busy_partitions_keep_about_as_many_claims() -> None:
    counts = DedupeCounts()
    both = [Dedupe(TTL_MS / 1000, 1_000, counts) for _ in range(2)]
    for number in range(60_000):
        both[number % 2].claim(number.to_bytes(16, "big"), 5_000, number)
    left = [len(subject) for subject in both]
    assert sum(left) == counts.entries == 1_000
    assert min(left) >= 400


def test_a_partition_that_is_given_up_at_the_limit_removes_only_its_own_claims() -> None:
    counts = DedupeCounts()
    first, second = (Dedupe(TTL_MS / 1000, 100, counts) for _ in range(2))
    for number in range(120):
        first.claim(number.to_bytes(16, "big"), 1_000, number)
    first.forget()
    assert counts.entries == 0
    for number in range(120):
        second.claim(number.to_bytes(16, "big"), 1_000, number)
    assert counts.entries == 100
    second.count_in(DedupeCounts())
    assert counts.entries == 0
    assert counts.partitions == []
