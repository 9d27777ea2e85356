"""The remembered values that Pendo has: how long they count, and that they stay within their bound."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

import orjson
import pytest

from flagpost_consumer.core.metadata.items import name_bytes
from flagpost_consumer.core.metadata.sent_values import (
    LONG_NAME_CHARACTERS,
    MAX_BYTES,
    VALUE_BYTES,
    Sent,
    SentValues,
    field_key,
    id_key,
    json_digest,
    value_digest,
    value_key,
)
from flagpost_schemas import MetadataValue

TTL_MS = 1_000


def sent(at: int, *, offset: int = 0) -> Sent:
    return Sent(at, offset, b"12345678")


def key(number: int, name: str = "plan") -> bytes:
    return value_key(id_key("visitor", f"v{number}"), field_key("custom", name))


def known(values: SentValues, partition: int, numbers: range, at: int) -> list[int]:
    return [number for number in numbers if values.near(partition, key(number), at)]


def test_the_last_value_of_a_field_is_known_within_one_ttl() -> None:
    values = SentValues(TTL_MS, 100)
    values.remember(0, key(1), sent(5_000, offset=7))
    values.remember(0, key(1, "seats"), sent(5_000))
    values.remember(0, key(1), sent(5_500, offset=8))
    assert len(values) == 2
    assert values.near(0, key(1), 6_499) == sent(5_500, offset=8)
    assert values.near(0, key(1), 6_500) is None
    assert values.near(0, key(1), 4_500) is None
    assert values.near(1, key(1), 5_500) is None, "what another partition sent"
    assert values.near(0, key(2), 5_500) is None


def test_a_doubted_value_keeps_its_time_only() -> None:
    values = SentValues(TTL_MS, 100)
    values.remember(0, key(1, "seats"), sent(5_000))
    values.remember(0, key(1), sent(5_000))
    values.doubt(0, key(1))
    values.doubt(0, key(2))
    found = values.near(0, key(1), 5_000)
    assert found is not None
    assert (found.occurred_at, found.digest) == (5_000, bytes(8))
    assert values.near(0, key(1, "seats"), 5_000) == sent(5_000)


def test_nothing_is_remembered_with_a_ttl_of_zero() -> None:
    values = SentValues(0, 100)
    values.remember(0, key(1), sent(5_000))
    assert len(values) == 0


# Keys and digests


@pytest.mark.parametrize("rest", [0, 2**128 - 1])
def test_each_bit_of_an_id_and_of_a_field_changes_the_key_of_a_value(rest: int) -> None:
    for bit in range(128):
        changed = rest ^ (1 << bit)
        assert value_key(changed, rest) != value_key(rest, rest)
        assert value_key(rest, changed) != value_key(rest, rest)


@pytest.mark.parametrize("length", [1, LONG_NAME_CHARACTERS, LONG_NAME_CHARACTERS + 1])
def test_a_field_has_a_key_for_its_group_and_name_which_is_kept_if_the_name_is_short(length: int) -> None:
    name = "n" * length
    found = field_key("custom", name)
    assert found == field_key("custom", name)
    assert len({found, field_key("agent", name), field_key("custom", "m" * length)}) == 3
    assert (found is field_key("custom", name)) is (length <= LONG_NAME_CHARACTERS)


def test_a_field_never_has_the_key_of_an_id() -> None:
    for name in ("v", "v" * (LONG_NAME_CHARACTERS + 1)):
        assert field_key("visitor", name) != id_key("visitor", name)
        assert field_key("visitor", name) < 2**128


@pytest.mark.parametrize("length", [1, LONG_NAME_CHARACTERS, LONG_NAME_CHARACTERS + 1])
def test_a_value_has_the_digest_of_its_json_which_is_kept_if_it_is_a_short_text(length: int) -> None:
    text = "t" * length
    assert value_digest(text) == json_digest(orjson.dumps(text)) != value_digest("u" * length)
    assert (value_digest(text) is value_digest(text)) is (length <= LONG_NAME_CHARACTERS)


def test_values_of_other_types_have_other_digests() -> None:
    contents: list[MetadataValue] = ["1", 1, 1.0, True, None, ["1"]]
    assert len({value_digest(content) for content in contents}) == len(contents)
    assert [value_digest(content) for content in contents] == [
        json_digest(orjson.dumps(content)) for content in contents
    ]


# The limit of the process


def test_at_the_limit_the_oldest_are_forgotten_first() -> None:
    """Before the fix, all older values of a partition went at once, also some that were sent a moment ago."""
    values = SentValues(TTL_MS, 100)
    for number in range(300):
        values.remember(0, key(number), sent(5_000))
        assert len(values) == min(number + 1, 100)
        assert known(values, 0, range(number - 100, number + 1), 5_000)[:1] == [max(0, number - 99)]
    assert known(values, 0, range(300), 5_000) == list(range(200, 300))


def test_a_quiet_partitions_values_go_before_a_busy_ones() -> None:
    """Before the fix, the partition with the most values lost half of them, and the quiet one kept old ones."""
    values = SentValues(TTL_MS, 100)
    for number in range(40):
        values.remember(0, key(number), sent(5_000))
    for number in range(100):
        values.remember(1, key(number), sent(90_000_000))
    assert known(values, 0, range(40), 5_000) == []
    assert known(values, 1, range(100), 90_000_000) == list(range(100))


def test_the_largest_of_partitions_with_equally_old_values_forgets_first() -> None:
    values = SentValues(TTL_MS, 10)
    for partition, count in ((0, 3), (1, 7)):
        for number in range(count):
            values.remember(partition, key(number), sent(5_000))
    values.remember(0, key(3), sent(5_000))
    assert known(values, 0, range(4), 5_000) == [0, 1, 2, 3]
    assert known(values, 1, range(7), 5_000) == [1, 2, 3, 4, 5, 6]


def test_values_that_are_sent_again_are_not_among_the_oldest() -> None:
    values = SentValues(TTL_MS, 100)
    for number in range(1_000):
        values.remember(0, key(number), sent(5_000))
        values.remember(0, key(0), sent(5_001 + number))
    assert known(values, 0, range(1_000), 5_500) == [0, *range(901, 1_000)]


def test_each_new_value_examines_only_a_part_of_the_values_that_were_sent_again() -> None:
    """All 100 have moved to the end of their queue: examining all of them at once could take long."""
    values = SentValues(TTL_MS, 100)
    for at in (5_000, 5_001):
        for number in range(100):
            values.remember(0, key(number), sent(at))
    values.remember(0, key(100), sent(5_002))
    assert len(values) == 101, "none of the first 64 is the oldest any more"
    values.remember(0, key(101), sent(5_002))
    assert len(values) == 100
    assert len(known(values, 0, range(102), 5_002)) == 100


def test_an_id_with_very_many_fields_keeps_the_newest_of_them() -> None:
    """Before the fix, the id counted as one value, and each further field walked through all the others."""
    values = SentValues(TTL_MS, 1_000)
    for number in range(2_000):
        values.remember(0, key(0, f"f{number}"), sent(5_000))
    assert len(values) == 1_000
    for number in range(2_000):
        assert (values.near(0, key(0, f"f{number}"), 5_000) is not None) is (number >= 1_000)


def test_the_limit_counts_values_and_not_ids() -> None:
    values = SentValues(TTL_MS, 1_000)
    for number in range(100):
        for field in range(50):
            values.remember(0, key(number, f"f{field}"), sent(5_000))
    assert len(values) == 1_000


@pytest.mark.thorough
@pytest.mark.parametrize(("fields", "ids"), [(1, 9_000), (5, 1_800), (50, 180)])
@pytest.mark.parametrize("partitions", [1, 24])
def test_remembered_values_take_no_more_memory_than_their_bound(
    fields: int, ids: int, partitions: int
) -> None:
    """Before the fix, the bound was 2,000,000 values: 300 MB with one field for each visitor, 130 MB with five."""
    most = 512 * 1024
    values = SentValues(1_800_000, 2_000_000, most)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(ids):
        for field in range(fields):
            at = 1_780_000_000_000 + number
            values.remember(number % partitions, key(number, f"f{field}"), sent(at, offset=number))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most * 0.9 < values.size_bytes <= most, "and it is used"
    assert after - before < most * 1.1
    newest = ids - 1
    assert values.near(newest % partitions, key(newest, "f0"), 1_780_000_000_000)


def test_long_names_of_fields_are_kept_in_no_cache() -> None:
    """4,096 names of 64 KB would take 256 MB in each of two caches; the names here would take 10 MB."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(500):
        name = f"{number}" + "n" * 20_000
        assert field_key("custom", name) == field_key("custom", name)
        assert name_bytes(name) == len(name) + len('"":,')
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1_000_000


# Time


def test_a_value_is_forgotten_once_its_partition_is_two_ttl_further() -> None:
    values = SentValues(TTL_MS, 100)
    values.remember(0, key(1), sent(5_000))
    values.remember(0, key(2), sent(5_000 + 2 * TTL_MS))
    assert len(values) == 2
    values.remember(0, key(3), sent(5_001 + 2 * TTL_MS))
    assert len(values) == 2


def test_values_older_than_two_ttl_are_forgotten_little_by_little() -> None:
    values = SentValues(TTL_MS, 1_000_000)
    for number in range(3_000):
        values.remember(0, key(number), sent(5_000 + number * 10))
        assert len(values) <= 6 * TTL_MS / 10
        assert values.near(0, key(max(0, number - 99)), 5_000 + number * 10)


def test_a_jump_in_event_time_forgets_a_few_values_at_a_time() -> None:
    """No call walks through all remembered values."""
    values = SentValues(TTL_MS, 1_000_000)
    for number in range(1_000):
        values.remember(0, key(number), sent(5_000))
    for number in range(1_000, 1_400):
        before = len(values)
        values.remember(0, key(number), sent(9_000_000))
        assert before - len(values) <= 4
    assert len(values) == 400


@pytest.mark.parametrize("step_ms", [0, TTL_MS + 1, 5 * TTL_MS])
def test_a_field_that_is_set_again_and_again_is_one_value(step_ms: int) -> None:
    values = SentValues(TTL_MS, 800)
    for number in range(5_000):
        values.remember(0, key(number % 10), sent(5_000 + number * step_ms))
        assert len(values) <= 10


# Partitions


def test_a_partition_that_leaves_is_forgotten_at_once() -> None:
    values = SentValues(TTL_MS, 1_000)
    for partition in range(3):
        for number in range(100):
            values.remember(partition, key(number), sent(5_000))
    values.forget_partition(1)
    values.forget_partition(7)
    assert len(values) == 200
    assert known(values, 1, range(100), 5_000) == []
    assert known(values, 0, range(100), 5_000) == known(values, 2, range(100), 5_000) == list(range(100))


def test_the_count_is_right_whatever_happens() -> None:
    draw = Random(1)
    for limit, limit_bytes in ((1, MAX_BYTES), (7, MAX_BYTES), (300, MAX_BYTES), (300, 5_000)):
        values = SentValues(TTL_MS, limit, limit_bytes)
        at = 5_000
        for _ in range(1_500):
            at += draw.choice((0, 0, 30, -500, 2_500))
            partition, number, name = draw.randrange(3), draw.randrange(60), f"f{draw.randrange(4)}"
            values.remember(partition, key(number, name), sent(max(0, at)))
            if draw.random() < 0.01:
                values.forget_partition(draw.randrange(3))
            assert len(values) <= min(limit, limit_bytes // VALUE_BYTES)
        assert len(values) == sum(map(len, values._partitions.values()))
        assert values.size_bytes == len(values) * VALUE_BYTES <= limit_bytes
