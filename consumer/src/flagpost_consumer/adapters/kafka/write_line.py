"""What waits to be written to one partition, and how it is retried.

In: items, and the result of each that was sent. Out: calls to send an item. Only a few at a time are in flight, so
that a partition that takes nothing fills neither librdkafka's queue nor the memory. After a refusal one item at a
time is tried, after growing pauses, until Kafka takes one: then all go on at once. An item that is no longer wanted
is dropped when its turn comes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from flagpost_kafka.backoff import Backoff

Item = TypeVar("Item", bound=Hashable)

FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 30.0
MAX_SENT_BYTES: Final = 1024 * 1024
"""The most bytes in flight of one line; a larger item goes alone."""
STALLED_SECONDS: Final = 10.0
"""A line stands still if Kafka has taken nothing of it for this long."""


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class WriteLine(Generic[Item]):
    """One line. Use it on the event loop only."""

    def __init__(
        self,
        send: Callable[[Item], None],
        is_wanted: Callable[[Item], bool],
        size_of: Callable[[Item], int],
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """`send` must have `taken`, `refused` or `recalled` called once for each item, at once or later."""
        self._send = send
        self._is_wanted = is_wanted
        self._size_of = size_of
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        self._clock = clock
        self._call_later = call_later or _on_the_loop
        self._waiting: deque[Item] = deque()
        self._sent: dict[Item, int] = {}  # with their sizes
        self._sent_bytes = 0
        self._doubtful = False
        self._timer: Timer | None = None
        self._still_since: float | None = None
        self._reason = ""

    def __len__(self) -> int:
        """The number of items that wait or are in flight."""
        return len(self._waiting) + len(self._sent)

    @property
    def newest(self) -> Item | None:
        """The last item, if it still waits."""
        return self._waiting[-1] if self._waiting else None

    @property
    def stalled(self) -> str | None:
        """Why nothing has been taken for a while; None: something has."""
        if self._still_since is None or self._clock() - self._still_since < STALLED_SECONDS:
            return None
        return self._reason or "Kafka does not answer"

    def offer(self, item: Item) -> None:
        """Write an item when it may go."""
        self._waiting.append(item)
        if self._still_since is None:
            self._still_since = self._clock()
        self._go()

    def put_first(self, item: Item) -> None:
        """Write an item before those that wait."""
        self._waiting.appendleft(item)

    def taken(self, item: Item) -> None:
        """Kafka has an item."""
        self._ended(item)
        self._doubtful = False
        self._reason = ""
        self._backoff.reset()
        self._cancel_timer()
        self._still_since = self._clock() if len(self) else None
        self._go()

    def refused(self, item: Item, reason: str) -> None:
        """Kafka has refused an item: it goes to the end of the line."""
        self._ended(item)
        self.hold(item, reason)

    def hold(self, item: Item, reason: str) -> None:
        """Write an item that Kafka has just refused, after a pause."""
        if self._still_since is None:
            self._still_since = self._clock()
        self._waiting.append(item)
        self._doubtful = True
        self._reason = reason
        if self._timer is None:
            pause = self._backoff.next_seconds()
            self._timer = self._call_later(pause, self._resume)

    def recalled(self, item: Item) -> None:
        """An item was taken back before Kafka answered: it is the next."""
        self._ended(item)
        self._waiting.appendleft(item)
        self._go()

    def prune(self) -> None:
        """Drop what is no longer wanted."""
        self._waiting = deque(item for item in self._waiting if self._is_wanted(item))
        if not len(self):
            self._still_since = None
            self._cancel_timer()

    def _resume(self) -> None:
        self._timer = None
        self._go()

    def _go(self) -> None:
        while self._waiting and self._timer is None and self._has_room():
            item = self._waiting.popleft()
            if self._is_wanted(item):
                self._sent[item] = size = self._size_of(item)
                self._sent_bytes += size
                self._send(item)
        if not len(self):
            self._still_since = None

    def _has_room(self) -> bool:
        return not self._sent or (not self._doubtful and self._sent_bytes < MAX_SENT_BYTES)

    def _ended(self, item: Item) -> None:
        self._sent_bytes -= self._sent.pop(item)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _on_the_loop(seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, action)
