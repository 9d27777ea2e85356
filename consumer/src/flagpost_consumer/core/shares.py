"""Fair shares of what may be pending.

In: what each visitor holds, and the room there is for all. Out: the most that one may hold, so that all fit and
nobody is cut who holds less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flagpost_consumer.core.policy import DeliverySettings

HOARD_PARTS = 10
"""Who holds no more than one of so many parts of `delivery.max_pending_per_visitor` is never cut: in a backlog of
many visitors each has a few events, and their pace gets through these soon."""


@dataclass(frozen=True, slots=True)
class Room:
    """What those who hold much may hold together, and what each may hold in any case."""

    count: int
    size_bytes: int
    least: int
    least_bytes: int

    @classmethod
    def of(cls, share: float, delivery: DeliverySettings) -> Room:
        """`share`: the part of what may be pending."""
        least = delivery.max_pending_per_visitor // HOARD_PARTS
        return cls(
            int(share * delivery.max_pending),
            int(share * delivery.max_pending_bytes),
            least,
            least * delivery.max_pending_bytes // delivery.max_pending,
        )

    def allow(self, counts: list[int], sizes_bytes: list[int]) -> tuple[int, int] | None:
        """The count and the bytes that each of these may hold; None: all fit, or there is only one."""
        if len(counts) < 2 or (sum(counts) <= self.count and sum(sizes_bytes) <= self.size_bytes):
            return None
        return (
            max(self.least, fair_share(counts, self.count)),
            max(self.least_bytes, fair_share(sizes_bytes, self.size_bytes)),
        )


def fair_share(holdings: Iterable[int], room: int) -> int:
    """The greatest share with which the sum of min(holding, share) is at most `room` (max-min fairness).

    It is at least the greatest holding where everything fits.
    """
    left = room
    sizes = sorted(holdings)
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            return max(0, share)
        left -= size
    return max(room, 0)
