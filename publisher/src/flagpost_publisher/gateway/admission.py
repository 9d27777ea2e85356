"""How much is worked on at once.

In: requests, and bytes as they are read. Out: nothing, or a Refusal (503) where there would be too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flagpost_publisher.gateway.refusals import Refusal, try_again

MAX_REQUESTS: Final = 1_000
MAX_BYTES: Final = 32 * 1024 * 1024
"""Bodies in memory, each from its first byte to its answer."""
RETRY_SECONDS: Final = 1


class Work:
    """One request's share of what is worked on."""

    def __init__(self, admission: Admission) -> None:
        """Holds no bytes yet."""
        self._admission = admission
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """So many bytes more are in memory. Raises Refusal."""
        self._admission.take(count)
        self.held_bytes += count


class Admission:
    """The bounds, and how much is within them."""

    def __init__(self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        """Nothing is worked on yet."""
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.held_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Wait until nothing is worked on."""
        await self._idle.wait()

    @contextmanager
    def request(self) -> Iterator[Work]:
        """Work on a request. Raises Refusal."""
        if self.requests >= self._max_requests:
            raise _too_much(f"{self._max_requests} requests are worked on, and no more may be")
        work = Work(self)
        self.requests += 1
        self._idle.clear()
        try:
            yield work
        finally:
            self.held_bytes -= work.held_bytes
            self.requests -= 1
            if self.requests == 0:
                self._idle.set()

    def take(self, count: int) -> None:
        """For `Work.hold`."""
        if self.held_bytes + count > self._max_bytes:
            raise _too_much(f"requests of {self._max_bytes} bytes are worked on, and no more may be")
        self.held_bytes += count


def _too_much(what: str) -> Refusal:
    return try_again(what, RETRY_SECONDS, "send the request again after the time in Retry-After")
