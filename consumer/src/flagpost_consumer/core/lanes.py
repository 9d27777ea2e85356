"""Each visitor's line of track deliveries: in order, one at a time, paced.

In: deliveries in the order of their offsets, and word of each answer. Out: the next delivery that may go.
What waits sits in a heap or a queue of this module; it holds no connection, task or slot.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What lanes need to know of a delivery."""

    deadline_ms: float
    """Among what may go, the nearest deadline goes first."""

    @property
    def not_before(self) -> float:
        """The monotonic second before which nothing of its partition may go."""


Item = TypeVar("Item", bound=Queued)


class Lane(Generic[Item]):
    """One visitor's line. The first of `queue` is the one that is sent next, or is on its way."""

    __slots__ = ("in_flight", "queue", "resting_until", "visitor_id")

    def __init__(self, visitor_id: str) -> None:
        self.visitor_id = visitor_id
        self.queue: deque[Item] = deque()
        self.resting_until = 0.0
        self.in_flight = False


class Lanes(Generic[Item]):
    """All lanes of a process. A lane exists while it has a delivery, or rests after one."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._lanes: dict[str, Lane[Item]] = {}
        self._ready: list[tuple[float, int, Lane[Item]]] = []
        self._delayed: list[tuple[float, int, Lane[Item]]] = []
        # Lanes after an answer, by the end of their rest: the interval is the same for all, so a queue does.
        self._resting: deque[tuple[float, Lane[Item]]] = deque()
        self._number = 0
        self.waiting = 0
        """Deliveries in the lanes that are not on their way."""

    def __len__(self) -> int:
        return len(self._lanes)

    def lane(self, visitor_id: str) -> Lane[Item] | None:
        """The lane of a visitor, where there is one."""
        return self._lanes.get(visitor_id)

    def push(self, visitor_id: str, item: Item, now: float) -> Lane[Item]:
        """Put a delivery at the end of its visitor's line."""
        lane = self._lanes.get(visitor_id)
        if lane is None:
            lane = self._lanes[visitor_id] = Lane(visitor_id)
            lane.queue.append(item)
            self._schedule(lane, now)
        else:
            lane.queue.append(item)
        self.waiting += 1
        return lane

    def take(self, now: float, avoid: str | None = None) -> Lane[Item] | None:
        """Give the lane whose first delivery is to go now, and mark it in flight.

        Another visitor than `avoid` goes first, if one is ready.
        """
        self.advance(now)
        lane = self._pop_ready(now)
        if lane is not None and lane.visitor_id == avoid and (other := self._pop_ready(now)) is not None:
            self._make_ready(lane)
            lane = other
        if lane is not None:
            lane.in_flight = True
            self.waiting -= 1
        return lane

    def answered(self, lane: Lane[Item], now: float) -> None:
        """The first delivery of a lane in flight has its answer and leaves the line."""
        lane.queue.popleft()
        self._rest(lane, now)

    def again(self, lane: Lane[Item], now: float, delay: float) -> None:
        """The first delivery of a lane in flight is to be tried again, after the pace and `delay` seconds."""
        lane.in_flight = False
        self.waiting += 1
        lane.resting_until = now + max(self._interval, delay)
        self._delay(lane, lane.resting_until)

    def discard_first(self, lane: Lane[Item], now: float) -> None:
        """The first delivery of a lane that `take` gave ends without a request: no rest is due."""
        lane.queue.popleft()
        lane.in_flight = False
        self._settle_down(lane, now)

    def discard_waiting_first(self, lane: Lane[Item]) -> Item:
        """The first delivery of a lane that is not in flight ends without another request."""
        self.waiting -= 1
        return lane.queue.popleft()

    def shorten(self, lane: Lane[Item], length: int) -> list[Item]:
        """Take the newest deliveries out of a line that is longer than `length`."""
        removed = [lane.queue.pop() for _ in range(len(lane.queue) - max(length, 1 if lane.in_flight else 0))]
        self.waiting -= len(removed)
        return removed

    def remove(self, visitor_ids: Iterable[str], unwanted: Callable[[Item], bool]) -> None:
        """Take waiting deliveries out of some visitors' lines; what is in flight stays."""
        for visitor_id in visitor_ids:
            lane = self._lanes.get(visitor_id)
            if lane is None:
                continue
            head = [lane.queue.popleft()] if lane.in_flight else []
            kept = [item for item in lane.queue if not unwanted(item)]
            self.waiting -= len(lane.queue) - len(kept)
            lane.queue = deque(head + kept)

    def advance(self, now: float) -> None:
        """Make ready what has waited long enough."""
        while self._resting and self._resting[0][0] <= now:
            self._settle_down(self._resting.popleft()[1], now)
        while self._delayed and self._delayed[0][0] <= now:
            self._settle_down(heapq.heappop(self._delayed)[2], now)

    def due_at(self, now: float) -> float | None:
        """When a lane is ready next: `now` if one is, None if none waits for a time."""
        if self._ready:
            return now
        moments = [queue[0][0] for queue in (self._resting, self._delayed) if queue]
        return min(moments, default=None)

    def ready(self, now: float) -> int:
        """How many lanes could send at once."""
        self.advance(now)
        return sum(_may_go(lane, now) for _, _, lane in self._ready)

    def lengths(self) -> Iterable[tuple[str, int]]:
        """Each visitor's number of deliveries."""
        return ((lane.visitor_id, len(lane.queue)) for lane in self._lanes.values())

    def _pop_ready(self, now: float) -> Lane[Item] | None:
        while self._ready:
            lane = heapq.heappop(self._ready)[2]
            if _may_go(lane, now):
                return lane
            # What made it ready was taken out of it meanwhile.
            self._settle_down(lane, now)
        return None

    def _rest(self, lane: Lane[Item], now: float) -> None:
        lane.in_flight = False
        lane.resting_until = now + self._interval
        if self._interval > 0:
            self._resting.append((lane.resting_until, lane))
        else:
            self._settle_down(lane, now)

    def _settle_down(self, lane: Lane[Item], now: float) -> None:
        """A lane's rest is over: it goes on, or ends."""
        if lane.queue:
            self._schedule(lane, now)
        else:
            del self._lanes[lane.visitor_id]

    def _schedule(self, lane: Lane[Item], now: float) -> None:
        start = lane.queue[0].not_before
        if start > now:
            self._delay(lane, start)
        else:
            self._make_ready(lane)

    def _make_ready(self, lane: Lane[Item]) -> None:
        self._number += 1
        heapq.heappush(self._ready, (lane.queue[0].deadline_ms, self._number, lane))

    def _delay(self, lane: Lane[Item], until: float) -> None:
        self._number += 1
        heapq.heappush(self._delayed, (until, self._number, lane))


def _may_go(lane: Lane[Item], now: float) -> bool:
    return bool(lane.queue) and lane.queue[0].not_before <= now
