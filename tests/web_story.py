"""A case for an analyst: an experiment that loses visitors for reasons that differ by variation.

In: a scene. Out: events to publish, and the numbers that must be shown for them. The numbers are counted only from
what was published and from what the stand-in for Pendo has received.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import ReceivedLog
from flagpost_consumer.demo.pendo_stand_in.received import Fate
from flagpost_schemas import DecisionEvent, Event, Source, TrackEvent
from scenes import Scene
from traffic import tracks

FLAG = "checkout"
REFUSED = frozenset({"visitor-7", "visitor-21"})
"""Visitors whom Pendo refuses."""
SETTINGS = {"delivery__visitor_interval_seconds": 0.0}


@dataclass
class Story:
    """Events, and why some of their visitors are lost."""

    events: list[Event] = field(default_factory=list)
    lost: dict[tuple[str, str], str] = field(default_factory=dict)
    """The reason, by visitor and variation."""

    def decisions(self) -> Iterable[DecisionEvent]:
        return (event for event in self.events if isinstance(event, DecisionEvent))

    def decided(self) -> dict[str, set[str]]:
        """Visitors by variation as sent."""
        found: dict[str, set[str]] = {}
        for event in self.decisions():
            variation = event.variation_key if event.enabled else "off"
            assert variation is not None
            found.setdefault(variation, set()).add(event.visitor_id)
        return found

    def published(self) -> Counter[str]:
        """Decisions by variation as sent."""
        return Counter((event.variation_key or "") if event.enabled else "off" for event in self.decisions())


def story(visitors: int = 60) -> Story:
    """Two events for each visitor. Of the treatment, some are too late, without consent, or refused by Pendo. For a
    few more visitors the flag is off.
    """
    now = time.time_ns() // 1_000_000
    told = Story()
    for number in range(visitors):
        visitor, variation = f"visitor-{number}", ("control", "treatment")[number % 2]
        fields: dict[str, object] = {"occurred_at": now, "rule_type": "experiment", "rule_key": "exp_1"}
        fields["source"] = Source(service="shop", sdk="python", sdk_version="5.1")
        if variation == "treatment" and number % 5 == 0:
            fields["consent"] = {"analytics": False}
            told.lost[visitor, variation] = "no_consent"
        elif variation == "treatment" and number % 9 == 0:
            fields["occurred_at"] = now - 601_000_000  # older than delivery.max_age_seconds
            told.lost[visitor, variation] = "expired"
        elif visitor in REFUSED:
            told.lost[visitor, variation] = "rejected"
        for again in (0, 1):
            told.events.append(decision(visitor, FLAG, variation, event_id=f"{number}-{again}", **fields))
    told.events += [
        decision(f"off-{number}", FLAG, "control", enabled=False, occurred_at=now, rule_type="delivery")
        for number in range(3)
    ]
    told.events.append(decision("one", "banner <b>&", "on", occurred_at=now, rule_type="delivery"))
    told.events.append(TrackEvent(event_id="t", occurred_at=now, visitor_id="visitor-1", event="Clicked"))
    return told


def tell(scene: Scene, told: Story) -> None:
    """Let the stand-in refuse the visitors of `REFUSED`, and publish the events."""
    for visitor in REFUSED:
        scene.pendo.faults.visitor(visitor, 422)
    scene.publish(told.events)


def delivered(received: ReceivedLog) -> dict[str, set[str]]:
    """The visitors of the flag that the stand-in has recorded, by variation."""
    found: dict[str, set[str]] = {}
    for request in tracks(received):
        body: Any = request.parsed
        if request.fate is Fate.RECORDED and body["properties"].get("flag_key") == FLAG:
            found.setdefault(body["properties"]["variation_key"], set()).add(body["visitorId"])
    return found
