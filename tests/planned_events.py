"""One event planned by the real planner, for the tests of planning.

In: an event, a policy. Out: its planned deliveries.
"""

from __future__ import annotations

from engine_world import START_MS
from flagpost_consumer.core.planning.plan import Planned, Planner
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure
from flagpost_schemas import Event, TrackEvent


def track(**fields: object) -> TrackEvent:
    """A track event that breaks no rule; `fields` replace its own."""
    values: dict[str, object] = {
        "event_id": "e",
        "occurred_at": START_MS,
        "visitor_id": "v",
        "event": "Clicked",
    }
    return TrackEvent(**{**values, **fields})  # type: ignore[arg-type]


def plan(
    event: Event | DecodeFailure, policy: Policy | None = None, now_ms: int = START_MS
) -> tuple[Planned, ...]:
    """The deliveries of an event at a time; by default with the default policy, at `START_MS`."""
    return Planner(policy or Policy()).plan(event, now_ms)
