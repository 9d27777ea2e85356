"""The aged table, case by case: keys within the bytes of other entries, the queue, the table that forgets."""

from __future__ import annotations

import hashlib

import pytest

from flagpost_consumer.core.books.aged_table import KEY_BYTES, NEVER_MS, AgedTable, Oldest

WITHIN_MS = 10
FIRST, SECOND = bytes([1]) * KEY_BYTES, bytes([2]) * KEY_BYTES
MANY = 256
"""The hash decides which keys share a bucket, and differs between processes: of this many pairs, some share one."""


def digest(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=KEY_BYTES).digest()


# Keys within the bytes of other entries


@pytest.mark.parametrize("shift", [1, 8])
def test_a_key_whose_bytes_begin_within_another_entry_is_not_found_there(shift: int) -> None:
    at = 5_000
    for number in range(MANY):
        table = AgedTable("q")
        key = digest(number)
        within = (key + at.to_bytes(8, "little"))[shift : shift + KEY_BYTES]
        table.claim(key, at, WITHIN_MS, 1)
        assert table.get(within) is None
        assert table.put(within, 7_000, 2)
        assert (table.get(key), table.get(within)) == ((key, at, 1), (within, 7_000, 2))


def test_a_key_is_found_between_entries_whose_bytes_contain_its_beginning() -> None:
    at = 5_000
    for number in range(MANY):
        table = AgedTable("q")
        before, after = digest(number), digest(number + MANY)[:8] + digest(number)[8:]
        key = before[8:] + at.to_bytes(8, "little")
        for offset, each in enumerate((before, key, after)):
            table.claim(each, at, WITHIN_MS, offset)
        assert table.get(key) == (key, at, 1)
        assert table.remove(key, at, 1)
        assert table.get(key) is None


def test_a_key_of_zeros_is_found_behind_an_entry_that_ends_in_zeros() -> None:
    zeros = bytes(KEY_BYTES)
    for number in range(MANY):
        table = AgedTable("q")
        table.claim(digest(number), 1, WITHIN_MS, 0)
        table.claim(zeros, 1, WITHIN_MS, 5)
        assert table.get(zeros) == (zeros, 1, 5)


def test_of_several_entries_of_a_key_the_near_one_is_found() -> None:
    table = AgedTable("q")
    for at in (0, 100, 200):
        table.claim(FIRST, at, WITHIN_MS, at)
    assert [table.near(FIRST, at, WITHIN_MS) for at in (9, 91, 209)] == [
        (FIRST, 0, 0),
        (FIRST, 100, 100),
        (FIRST, 200, 200),
    ]
    assert table.near(FIRST, 50, WITHIN_MS) is None
    assert table.near(SECOND, 0, WITHIN_MS) is None


def test_a_replaced_entry_leaves_nothing_behind() -> None:
    table = AgedTable("q")
    assert [table.put(FIRST, at, at) for at in (10, 20)] == [True, False]
    assert table.remove(FIRST, 20, 20)
    assert (table.get(FIRST), len(table)) == (None, 0)


# The queue


def replaced() -> AgedTable:
    """A table with two entries, of which the first was replaced by one that is newer than both."""
    table = AgedTable("q")
    table.put(FIRST, 10, 1)
    table.put(SECOND, 20, 2)
    table.put(FIRST, 30, 3)
    return table


def test_an_entry_with_a_newer_time_is_forgotten_when_that_has_passed() -> None:
    table = replaced()
    assert table.forget_before(15, 9) == 0
    assert (len(table), table.oldest_ms) == (2, 20)
    assert table.forget_before(30, 9) == 1
    assert table.get(FIRST) == (FIRST, 30, 3)
    assert table.forget_before(31, 9) == 1
    assert (len(table), table.oldest_ms) == (0, NEVER_MS)


def test_an_entry_whose_time_is_the_limit_stays() -> None:
    assert replaced().forget_before(30, 1) == 0


def test_an_entry_with_a_newer_time_is_forgotten_after_the_others() -> None:
    table = replaced()
    assert [table.forget_first() for _ in range(3)] == [0, 1, 1]
    assert len(table) == 0
    table = replaced()
    table.forget_first()
    table.forget_first()
    assert (table.get(FIRST), table.get(SECOND)) == ((FIRST, 30, 3), None)


def test_the_place_of_a_removed_entry_takes_no_other_entry_with_it() -> None:
    for number in range(MANY):
        table = AgedTable("q")
        removed, other = digest(number), digest(number + MANY)
        table.claim(removed, 5_000, WITHIN_MS, 1)
        table.claim(other, 5_000, WITHIN_MS, 2)
        assert table.remove(removed, 5_000, 1)
        assert [table.forget_first() for _ in range(2)] == [0, 1]


def test_the_queue_stays_short_and_keeps_every_entry() -> None:
    table = AgedTable("q")
    keys = [digest(number) for number in range(500)]
    for key in keys:
        table.claim(key, 5_000, WITHIN_MS, 1)
    for number in range(20_000):
        table.claim(FIRST, 5_000, WITHIN_MS, number)
        table.remove(FIRST, 5_000, number)
        assert len(table._times) - table._first <= 3 * len(table) + 1_024
    assert table.forget_before(NEVER_MS, 10**6) == len(keys)
    assert len(table) == 0


# The table that forgets next


def test_the_table_with_the_oldest_entry_forgets_sixty_four_times_before_one_is_chosen_again() -> None:
    holders = [[1], [2]]
    oldest: Oldest[list[int]] = Oldest(lambda holder: holder[0])
    turns = [oldest.of(holders)]
    holders[0][0] = 9
    turns += [oldest.of(holders) for _ in range(63)]
    assert all(each is holders[0] for each in turns)
    assert oldest.of(holders) is holders[1]


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_table_that_is_empty_or_gone_is_not_chosen(is_empty: bool) -> None:
    holders = [[1], [2]]
    oldest: Oldest[list[int]] = Oldest(lambda holder: holder[0] if holder else NEVER_MS)
    assert oldest.of(holders) is holders[0]
    if is_empty:
        holders[0].clear()
    else:
        del holders[0]
        oldest.reset()
    assert oldest.of(holders) is holders[-1]
