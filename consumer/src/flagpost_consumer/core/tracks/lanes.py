"""Each visitor's lane of track deliveries: in order, one at a time, paced.

In: deliveries in the order of their offsets, and each answer. Out: the next delivery that may start. What waits is in
a heap or a queue of this module; it holds no connection, task or slot.

A lane whose last request failed is *failing*. Failing lanes share a small part of the connections and of the
requests, so that visitors whose requests hang or fail take nothing from the others (docs/guarantees.md#isolation).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Generic, Protocol, TypeVar

from flagpost_consumer.core.books.shares import PACED_SECONDS, WHATEVER, Holding

RETRY_SHARE = 8
"""While other lanes are ready, failing lanes get one of this many connections and of this many requests."""
IDLE_RETRY_SHARE = 2
"""While no other lane is ready, they get one of this many connections: the next visitor finds the rest free."""

STUCK_FAILURES = 3
"""A lane is stuck after this many failures in a row while others passed, or after one if it has to wait for long."""


class Queued(Protocol):
    """What lanes need to know of a delivery."""

    turn: float
    """Among deliveries that may start, the one with the lowest goes first."""

    @property
    def not_before(self) -> float:
        """The monotonic second before which nothing of its partition may start."""

    @property
    def is_held(self) -> bool:
        """Whether nothing of its partition may start until `Lanes.unpark`."""

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in memory."""


Item = TypeVar("Item", bound=Queued)


class Lane(Generic[Item]):
    """One visitor's lane. The first of `queue` is sent next, or is in flight."""

    __slots__ = (
        "behind",
        "behind_bytes",
        "failures",
        "failures_alone",
        "in_flight",
        "is_parked",
        "is_retry",
        "queue",
        "queue_bytes",
        "said_nothing",
        "started_at",
        "took_seconds",
        "unfailed",
        "visitor_id",
    )

    def __init__(self, visitor_id: str, first: Item) -> None:
        self.visitor_id = visitor_id
        self.queue: deque[Item] = deque((first,))
        self.queue_bytes = first.size_bytes
        self.started_at = 0.0
        """When its latest request started."""
        self.took_seconds = 0.0
        """How long Pendo took for its latest answer."""
        self.in_flight = False
        self.is_parked = False
        self.failures = 0
        """How many of its requests have failed in a row."""
        self.failures_alone = 0
        """How many of these failed although others' requests passed; a long wait counts as several."""
        self.is_retry = False
        """Whether its latest request started while it was failing."""
        self.said_nothing = False
        """Whether its latest answer was a 429 or a rejection: those do not tell whether an endpoint is back."""
        self.behind = 0
        """Deliveries that wait behind the first."""
        self.behind_bytes = 0
        self.unfailed = 1
        """1 if it counts in `Lanes.unfailed`, else 0."""

    @property
    def holding(self) -> Holding:
        """What waits behind the first."""
        return Holding(self.behind, self.behind_bytes)


class Lanes(Generic[Item]):
    """All lanes of a process. A lane exists while it has a delivery, or rests after one."""

    def __init__(
        self, interval_seconds: float, much: Holding = WHATEVER, much_stuck: Holding = WHATEVER
    ) -> None:
        """Lanes in which more than `much` waits behind the first delivery are in `long`.

        `much_stuck`: the same for lanes that are stuck.
        """
        self._interval = interval_seconds
        self._much = much
        self._much_stuck = much_stuck
        self._lanes: dict[str, Lane[Item]] = {}
        self._ready: list[tuple[float, int, Lane[Item]]] = []
        self._retries: list[tuple[float, int, Lane[Item]]] = []
        """Failing lanes that are ready."""
        self._delayed: list[tuple[float, int, Lane[Item]]] = []
        # Lanes after an answer, by the end of their rest: the interval is the same for all, so a queue is enough.
        self._resting: deque[tuple[float, Lane[Item]]] = deque()
        self._parked: list[Lane[Item]] = []
        self._number = 0
        self._others_since_retry = 0
        self.retries_in_flight = 0
        """Requests in flight of lanes that were failing when the request started."""
        self.waiting = 0
        """Deliveries in lanes that are not in flight."""
        self.unfailed = 0
        """Lanes that have a delivery, and whose latest answer was a 2xx or has not come yet: their requests can show
        whether an endpoint is back.
        """
        self.long: dict[str, Lane[Item]] = {}
        """Lanes in which more than `much` waits."""

    def __len__(self) -> int:
        return len(self._lanes)

    def lane(self, visitor_id: str) -> Lane[Item] | None:
        """The lane of a visitor, or None."""
        return self._lanes.get(visitor_id)

    def push(self, visitor_id: str, item: Item, now: float) -> None:
        """Put a delivery at the end of its visitor's lane."""
        self.waiting += 1
        lane = self._lanes.get(visitor_id)
        if lane is None:
            self._lanes[visitor_id] = lane = Lane(visitor_id, item)
            self.unfailed += 1
            self._schedule(lane, now)
        else:
            lane.queue.append(item)
            lane.queue_bytes += item.size_bytes
            self._count(lane)

    # Out

    def take(self, now: float, connections: int) -> Lane[Item] | None:
        """Return the lane whose first delivery starts now, and mark it in flight.

        `connections`: how many requests may be in flight; failing lanes get a part of them.
        """
        self.advance(now)
        queue = self._next_queue(now, connections)
        return None if queue is None else self._start(heapq.heappop(queue)[2], now)

    def take_least_failed(self, now: float, rejected: Collection[str] = ()) -> Lane[Item] | None:
        """Return the best probe of an endpoint that is down, marked in flight: among the lanes that failed least, the
        one whose first delivery is the youngest. Visitors in `rejected` are chosen only if there is no other.

        A visitor that always fails has the oldest deliveries, and a new owner of its partition does not know yet that
        it fails.
        """
        self.advance(now)
        usable = [
            (entry[2].visitor_id in rejected, lanes is self._retries, _fitness(entry), entry)
            for lanes in (self._ready, self._retries)
            if self._first(lanes, now) is not None
            for entry in lanes
            if _may_go(entry[2], now) and not entry[2].queue[0].is_held
        ]
        if not usable:
            return None
        _, is_retry, _, best = min(usable)
        lanes = self._retries if is_retry else self._ready
        lanes.remove(best)
        heapq.heapify(lanes)
        return self._start(best[2], now)

    def due_at(self, now: float, connections: int) -> float | None:
        """When `take` returns a lane next: `now` if at once, None if that depends on an answer."""
        if self._next_queue(now, connections) is not None:
            return now
        return self._next_wait()

    def probe_due_at(self, now: float) -> float | None:
        """When `take_least_failed` returns a lane next."""
        if self._first(self._ready, now) is not None or self._first(self._retries, now) is not None:
            return now
        return self._next_wait()

    def advance(self, now: float) -> None:
        """Make ready what has waited long enough."""
        while self._resting and self._resting[0][0] <= now:
            self._settle_down(self._resting.popleft()[1], now)
        while self._delayed and self._delayed[0][0] <= now:
            self._settle_down(heapq.heappop(self._delayed)[2], now)

    def unpark(self, now: float) -> None:
        """Continue lanes whose partition was held; those that are still held are parked again."""
        parked, self._parked = self._parked, []
        for lane in parked:
            lane.is_parked = False
            self._settle_down(lane, now)
            self._count(lane)

    # Answers

    def passed(self, lane: Lane[Item]) -> None:
        """The request in flight of a lane has passed, so the lane is not failing."""
        lane.failures = lane.failures_alone = 0
        lane.said_nothing = False

    def rejected(self, lane: Lane[Item]) -> None:
        """The request in flight of a lane was rejected for its contents: the lane is not failing either."""
        lane.failures = lane.failures_alone = 0
        lane.said_nothing = True

    def throttled(self, lane: Lane[Item]) -> None:
        """The request in flight of a lane is to come again later."""
        lane.said_nothing = True

    def failed(self, lane: Lane[Item], *, alone: bool) -> None:
        """The request in flight of a lane has failed; `alone`: while others' passed."""
        lane.failures += 1
        lane.failures_alone += alone

    def may_keep(self, lane: Lane[Item]) -> Holding:
        """What may always wait behind the first delivery."""
        return self._much_stuck if self.is_stuck(lane) else self._much

    def is_stuck(self, lane: Lane[Item]) -> bool:
        """Whether a lane does not get shorter although others do."""
        return lane.failures_alone >= STUCK_FAILURES

    def answered(self, lane: Lane[Item], now: float) -> None:
        """The delivery in flight of a lane has ended and leaves the lane."""
        self._landed(lane)
        lane.took_seconds = now - lane.started_at
        self._pop_first(lane)
        if self._interval > 0:
            self._resting.append((now + self._interval, lane))
        else:
            self._settle_down(lane, now)
        self._count(lane)

    def again(self, lane: Lane[Item], now: float, delay: float, *, alone: bool = False) -> None:
        """The delivery in flight of a lane is retried, after the pace and `delay` seconds; `alone`: while others'
        requests pass.
        """
        self._landed(lane)
        lane.took_seconds = now - lane.started_at
        if alone and delay > PACED_SECONDS:
            lane.failures_alone = max(lane.failures_alone, STUCK_FAILURES)
        self.waiting += 1
        self._delay(lane, now + max(self._interval, delay))
        self._count(lane)

    def discard_first(self, lane: Lane[Item], now: float) -> None:
        """The first delivery of a lane that `take` returned ends without a request: no rest follows."""
        self._landed(lane)
        self._pop_first(lane)
        self._settle_down(lane, now)
        self._count(lane)

    # Taking out

    def shorten(self, lane: Lane[Item], most: Holding) -> list[Item]:
        """Take the newest deliveries out of a lane while more than `most` waits behind the first; return them."""
        removed = []
        while lane.holding.exceeds(most):
            item = lane.queue.pop()
            lane.queue_bytes -= item.size_bytes
            removed.append(item)
            self._count(lane)
        self.waiting -= len(removed)
        return removed

    def remove(self, visitor_ids: Iterable[str], unwanted: Callable[[Item], bool]) -> None:
        """Take waiting deliveries out of some visitors' lanes; what is in flight stays."""
        for visitor_id in visitor_ids:
            lane = self._lanes.get(visitor_id)
            if lane is None:
                continue
            head = [lane.queue.popleft()] if lane.in_flight else []
            kept = [item for item in lane.queue if not unwanted(item)]
            self.waiting -= len(lane.queue) - len(kept)
            lane.queue = deque(head + kept)
            lane.queue_bytes = sum(item.size_bytes for item in lane.queue)
            self._count(lane)

    @property
    def startable(self) -> int:
        """About how many lanes that are not failing could start at once; rarely too low."""
        return len(self._ready)

    # For people

    def ready(self, now: float) -> int:
        """How many lanes could send at once and are not failing."""
        self.advance(now)
        return sum(_may_go(lane, now) and not lane.queue[0].is_held for _, _, lane in self._ready)

    def lengths(self) -> Iterable[tuple[str, int]]:
        """Each visitor's number of deliveries."""
        return ((lane.visitor_id, len(lane.queue)) for lane in self._lanes.values())

    # Inside

    def _next_queue(self, now: float, connections: int) -> list[tuple[float, int, Lane[Item]]] | None:
        """The heap whose first lane starts next."""
        other = self._first(self._ready, now)
        retry = self._first(self._retries, now) if self._retries else None
        if retry is None:
            return None if other is None else self._ready
        if other is None:
            return self._retries if self._may_retry(connections, IDLE_RETRY_SHARE) else None
        is_turn = self._others_since_retry >= RETRY_SHARE - 1 and self._may_retry(connections, RETRY_SHARE)
        return self._retries if is_turn and retry < other else self._ready

    def _may_retry(self, connections: int, share: int) -> bool:
        return self.retries_in_flight < max(1, connections // share)

    def _first(self, queue: list[tuple[float, int, Lane[Item]]], now: float) -> float | None:
        """The turn of the first lane of a heap that may start; lanes that must wait leave the heap."""
        while queue:
            lane = queue[0][2]
            first = lane.queue[0] if lane.queue else None
            if first is None or first.not_before > now:
                heapq.heappop(queue)
                # The delivery that made it ready was taken out meanwhile.
                self._settle_down(lane, now)
            elif first.is_held:
                heapq.heappop(queue)
                self._park(lane)
            else:
                return queue[0][0]
        return None

    def _next_wait(self) -> float | None:
        moments = [queue[0][0] for queue in (self._resting, self._delayed) if queue]
        return min(moments, default=None)

    def _start(self, lane: Lane[Item], now: float) -> Lane[Item]:
        lane.in_flight = True
        lane.started_at = now
        lane.is_retry = lane.failures > 0
        self.waiting -= 1
        self.retries_in_flight += lane.is_retry
        self._others_since_retry = 0 if lane.is_retry else self._others_since_retry + 1
        return lane

    def _landed(self, lane: Lane[Item]) -> None:
        lane.in_flight = False
        self.retries_in_flight -= lane.is_retry

    def _pop_first(self, lane: Lane[Item]) -> None:
        lane.queue_bytes -= lane.queue.popleft().size_bytes

    def _settle_down(self, lane: Lane[Item], now: float) -> None:
        """A lane's rest is over: it continues, or ends."""
        if lane.queue:
            self._schedule(lane, now)
        else:
            del self._lanes[lane.visitor_id]

    def _schedule(self, lane: Lane[Item], now: float) -> None:
        start = lane.queue[0].not_before
        if start > now:
            self._delay(lane, start)
        else:
            self._number += 1
            ready = self._retries if lane.failures else self._ready
            heapq.heappush(ready, (lane.queue[0].turn, self._number, lane))

    def _delay(self, lane: Lane[Item], until: float) -> None:
        self._number += 1
        heapq.heappush(self._delayed, (until, self._number, lane))

    def _park(self, lane: Lane[Item]) -> None:
        lane.is_parked = True
        self._parked.append(lane)
        self._count(lane)

    def _count(self, lane: Lane[Item]) -> None:
        """Update the counts of one lane, and the sums."""
        length = len(lane.queue)
        unfailed = int(length > 0 and not (lane.failures or lane.said_nothing or lane.is_parked))
        self.unfailed += unfailed - lane.unfailed
        lane.unfailed = unfailed
        if length > 1:
            lane.behind = length - 1
            lane.behind_bytes = lane.queue_bytes - lane.queue[0].size_bytes
        else:
            lane.behind = lane.behind_bytes = 0
        if length > 1 and lane.holding.exceeds(self.may_keep(lane)):
            self.long[lane.visitor_id] = lane
        elif self.long:
            self.long.pop(lane.visitor_id, None)


def _fitness(entry: tuple[float, int, Lane[Item]]) -> tuple[int, float, int]:
    """The lowest value is the best probe. Of deliveries that came together, the last has the highest number."""
    turn, number, lane = entry
    return lane.failures + lane.said_nothing, -turn, -number


def _may_go(lane: Lane[Item], now: float) -> bool:
    return bool(lane.queue) and lane.queue[0].not_before <= now
