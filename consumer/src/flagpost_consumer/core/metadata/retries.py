"""Metadata batches that wait to be sent again.

In: a batch and when it is due. Out: the one that is due. Every operation is O(log n) in the number of batches.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True, eq=False)
class Batch:
    """The ids of one request."""

    target: str
    group: str
    ids: list[str]
    failures: int = 0
    """Failed requests for these ids; a half of a batch begins at 0."""
    successes_seen: int = 0
    """The endpoint's successes when its last request was answered, or when its first one started."""
    failed_alone: bool = False
    """Its last request failed, although another batch's had passed since its request before that."""
    narrowed: bool = False
    """It is a half of a batch that failed alone: one of the two halves must contain the bad record."""
    is_probe: bool = False
    """Its one id probes an endpoint that is down; if the request fails, the id waits to be batched again."""
    number: int | None = None
    """Its key among those that wait to be sent again; None while it is in flight."""
    waiting_ids: int = 0
    """How many of its ids still have something to send, while it waits."""

    @property
    def who(self) -> str:
        """The name by which the endpoint tells this batch from others."""
        return self.ids[0]


class Retries:
    """The batches that wait to be sent again."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._batches: dict[int, Batch] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._batches)

    def push(self, at: float, batch: Batch) -> None:
        """Let a batch wait until a moment."""
        self._number += 1
        batch.number = self._number
        self._batches[self._number] = batch
        heapq.heappush(self._heap, (at, self._number))

    def first_at(self) -> float | None:
        """When the first batch is due."""
        while self._heap and self._heap[0][1] not in self._batches:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def first(self, now: float) -> Batch | None:
        """Return the first batch that is due; it goes on waiting."""
        at = self.first_at()
        return None if at is None or at > now else self._batches[self._heap[0][1]]

    def pop(self, now: float, choose: Callable[[Batch], str | None]) -> tuple[Batch, str] | None:
        """Return the first batch that is due and of which `choose` returns an id, and that id. The batch waits no
        longer; the others go on waiting.
        """
        found, passed_over = None, []
        while found is None and (batch := self.first(now)) is not None:
            target_id = choose(batch)
            if target_id is None:
                passed_over.append(heapq.heappop(self._heap))
            else:
                found = batch, target_id
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        if found is not None:
            self.drop(found[0])
        return found

    def drop(self, batch: Batch) -> None:
        """A batch no longer waits."""
        if batch.number is None:
            return
        del self._batches[batch.number]
        batch.number = None
        if len(self._heap) > 2 * len(self._batches) + 16:
            self._heap = [entry for entry in self._heap if entry[1] in self._batches]
            heapq.heapify(self._heap)

    def hurry(self, now: float) -> None:
        """Make all that waits due now."""
        self._heap = [(now, number) for number in sorted(self._batches)]
