"""Event ids: version 7 UUIDs of the current time, never the same twice, not even in a forked child."""

import functools
import multiprocessing
import operator
import random
import time
from uuid import RFC_4122, UUID

from flagpost_schemas import new_event_id


def test_an_id_is_a_version_7_uuid_of_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    text = new_event_id()
    after = time.time_ns() // 1_000_000

    identity = UUID(text)
    assert str(identity) == text
    assert (identity.version, identity.variant) == (7, RFC_4122)
    assert before <= identity.int >> 80 <= after


def test_an_id_may_be_of_another_time() -> None:
    assert UUID(new_event_id(1_700_000_000_123)).int >> 80 == 1_700_000_000_123


def test_all_other_bits_are_random() -> None:
    low = [UUID(new_event_id()).int & (1 << 80) - 1 for _ in range(2_000)]
    fixed = 0b1111 << 76 | 0b11 << 62  # version and variant

    assert functools.reduce(operator.and_, low) == 7 << 76 | 0b10 << 62
    assert functools.reduce(operator.or_, low) | fixed == (1 << 80) - 1


def test_a_seeded_application_does_not_seed_the_ids() -> None:
    random.seed(1)
    first = new_event_id()
    random.seed(1)

    assert new_event_id()[15:] != first[15:]


def test_forked_children_have_ids_of_their_own() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        ids = pool.map(_random_part, range(4), chunksize=1)

    assert len({*ids, _random_part(0)}) == 5


def _random_part(_number: int) -> str:
    return new_event_id()[15:]
