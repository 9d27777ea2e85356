"""Records that another partitioner placed are counted, in the lanes that are checked."""

from __future__ import annotations

import pytest

from engine_steps import TRACKS_ONLY, engine_with, instant
from engine_world import START_MS, decision, record
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.core.planning.visitor_names import ANONYMOUS_PREFIX
from flagpost_consumer.core.policy import AnonymousPolicy, MappingSettings, Policy
from flagpost_consumer.core.tracks.track_sending import LINES_CHECKED_A_SECOND
from flagpost_schemas import TrackEvent

COUNT = 8


def visitors_of(partition: int, count: int) -> list[str]:
    """Visitors that belong on a partition."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        visitor = f"v{number}"
        number += 1
        if partition_of(visitor.encode(), COUNT) == partition:
            found.append(visitor)
    return found


def test_a_lane_that_begins_on_a_wrong_partition_counts_once() -> None:
    engine = engine_with(TRACKS_ONLY, (0,), COUNT)
    (right,), (wrong,) = visitors_of(0, 1), visitors_of(1, 1)
    events = [decision(right), decision(wrong), decision(wrong, "other")]
    engine.receive([record(event, offset) for offset, event in enumerate(events)], instant(2.0))
    assert engine.accounts.mispartitioned == 1


def test_a_key_that_is_not_the_visitors_counts() -> None:
    engine = engine_with(TRACKS_ONLY, (0,), COUNT)
    (right,) = visitors_of(0, 1)
    engine.receive([record(decision(right), key="another")], instant(2.0))
    assert engine.accounts.mispartitioned == 1


def test_an_anonymous_visitors_key_is_the_anonymous_id_without_pendos_prefix() -> None:
    policy = Policy(mapping=MappingSettings(anonymous=AnonymousPolicy.AS_ANONYMOUS))
    engine = engine_with(policy, (0,), COUNT)
    (right,), (wrong,) = visitors_of(0, 1), visitors_of(1, 1)
    events = {
        name: TrackEvent(event_id=name, occurred_at=START_MS, visitor_id=None, anonymous_id=name, event="e")
        for name in (right, wrong)
    }
    records = [record(event, offset, key=name) for offset, (name, event) in enumerate(events.items())]
    engine.receive(records, instant(2.0))
    assert engine.accounts.mispartitioned == 1


def test_the_key_of_an_identified_visitor_is_its_id_even_if_that_begins_like_an_anonymous_one() -> None:
    engine = engine_with(TRACKS_ONLY, (0,), COUNT)
    numbers = iter(range(1_000))
    visitor = next(
        name for n in numbers if partition_of((name := f"{ANONYMOUS_PREFIX}{n}").encode(), COUNT) == 0
    )
    engine.receive([record(decision(visitor))], instant(2.0))
    assert (engine.accounts.records, engine.accounts.mispartitioned) == (1, 0)


@pytest.mark.parametrize("first_second", [0.0, 2.0])
def test_only_so_many_lanes_are_checked_in_each_second(first_second: float) -> None:
    engine = engine_with(TRACKS_ONLY, (0,), COUNT)
    wrong = visitors_of(1, LINES_CHECKED_A_SECOND + 20)
    records = [record(decision(visitor), offset) for offset, visitor in enumerate(wrong)]
    engine.receive(records[:-10], instant(first_second))
    assert engine.accounts.mispartitioned == LINES_CHECKED_A_SECOND
    engine.receive(records[-10:], instant(first_second + 1.0))
    assert engine.accounts.mispartitioned == LINES_CHECKED_A_SECOND + 10
