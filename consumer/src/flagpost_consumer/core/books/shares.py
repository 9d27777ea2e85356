"""Fair shares of the limit of pending deliveries.

In: what each visitor holds, and the room for all. Out: the most that one visitor may hold, so that everything fits
and nobody who holds less is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

from flagpost_consumer.core.policy import DeliverySettings

HOARD_PARTS = 10
"""Whoever holds at most one tenth of `delivery.max_pending_per_visitor` is never cut: in a backlog of many visitors
each has a few events, and their pace gets through these soon.
"""
PACED_SECONDS = 5.0
"""Nor is a visitor with no more than can be sent within this time: it is sent before it could stop anybody."""
FEW = 10
"""Nor is an id with no more metadata deliveries than this: they go in one request."""
HOT_PACE = 0.5
"""A visitor is hot if it publishes faster than this part of the pace at which its events are sent. A backlog without
hot visitors is worked off at least twice as fast as it grew.
"""


class Holding(NamedTuple):
    """A number of deliveries and their bytes."""

    deliveries: float
    size_bytes: float

    def exceeds(self, most: Holding) -> bool:
        """Whether it is more than `most`, in deliveries or in bytes."""
        return self.deliveries > most.deliveries or self.size_bytes > most.size_bytes

    def or_more(self, other: Holding) -> Holding:
        """The greater number, and the greater size, of two."""
        return Holding(max(self.deliveries, other.deliveries), max(self.size_bytes, other.size_bytes))


WHATEVER = Holding(inf, inf)


@dataclass(frozen=True, slots=True)
class Room:
    """What those who hold much may hold together, and what each may always hold."""

    whole: Holding
    least: Holding
    """For visitors whose requests pass, or may still pass: what they hold will be sent."""
    least_stuck: Holding
    """For visitors whose requests fail again and again while others pass: what they hold may stay for hours."""
    least_metadata: Holding
    """For the metadata of an id."""

    @classmethod
    def of(cls, share: float, delivery: DeliverySettings) -> Room:
        """`share`: the part of what may be pending."""
        per_visitor, interval = delivery.max_pending_per_visitor, delivery.visitor_interval_seconds
        stuck = per_visitor // HOARD_PARTS
        paced = ceil(PACED_SECONDS / interval) if interval else per_visitor
        each_bytes = delivery.max_pending_bytes / delivery.max_pending

        def least(deliveries: int) -> Holding:
            return Holding(max(stuck, deliveries), int(max(stuck, deliveries) * each_bytes))

        return cls(
            Holding(int(share * delivery.max_pending), int(share * delivery.max_pending_bytes)),
            least(min(paced, per_visitor - 1)),
            least(stuck),
            least(min(FEW, per_visitor - 1)),
        )

    def share(self, holdings: Sequence[Holding]) -> Holding | None:
        """The fair share of each of these; None: everything fits, or there is only one."""
        counts, sizes = [each.deliveries for each in holdings], [each.size_bytes for each in holdings]
        if len(holdings) < 2 or not Holding(sum(counts), sum(sizes)).exceeds(self.whole):
            return None
        return Holding(fair_share(counts, self.whole.deliveries), fair_share(sizes, self.whole.size_bytes))


def is_hot(deliveries: int, published_within_ms: float, each_seconds: float) -> bool:
    """Whether a visitor published this many events faster than half the pace at which they are sent.

    `each_seconds`: from the start of one request to the next: the interval plus Pendo's response time.
    """
    return published_within_ms * HOT_PACE < deliveries * each_seconds * 1000


def fair_share(holdings: Iterable[float], room: float) -> float:
    """The greatest share with which the sum of min(holding, share) is at most `room` (max-min fairness).

    It is at least the greatest holding if everything fits.
    """
    left = room
    sizes = sorted(holdings)
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            return max(0, share)
        left -= size
    return max(room, 0)
