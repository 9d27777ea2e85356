"""The engine in an environment that does not cooperate: no loss, order and pace hold, healthy visitors go on."""

from __future__ import annotations

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from property.hostile_world import HostileWorld, metadata_ids_never_overlap

NOT_SHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A smaller seed is not a simpler world: shrinking would not help."""


@pytest.mark.thorough
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=2)
@example(seed=7)
@example(seed=183283)
@settings(deadline=None, max_examples=examples(5), phases=NOT_SHRUNK)
def test_whatever_fails_healthy_visitors_go_on_and_nothing_is_lost(seed: int) -> None:
    world = HostileWorld(seed)
    world.run_all()
    world.check_order_in_each_stay()
    world.check_order_of_deliveries()
    world.check_spacing_from_answers()
    metadata_ids_never_overlap(world)
    for number, records in world.log.items():
        for made in records:
            settlements = world.settled[number, made.offset, Kind.TRACK]
            if world.is_healthy(made):
                assert settlements, f"{made.key!r} at {number}/{made.offset} is lost"
                reasons = {each.ending.reason for each in settlements}
                assert reasons <= {Reason.OK, Reason.DEDUPE}, (made, reasons)
                metadata = world.settled.get((number, made.offset, Kind.VISITOR_METADATA), [])
                dead = {
                    each.ending.reason for each in metadata if each.ending.outcome is Outcome.DEAD_LETTERED
                }
                assert not dead, (made, dead)
            elif (made.key or b"").startswith(b"poison"):
                assert all(each.ending.outcome is not Outcome.DELIVERED for each in settlements)
