"""How much is worked on at once.

In: requests, and bytes as they are read. Out: nothing, or a Refusal (503) where there would be too many. Requests
that have shown no key before their body have a small admission of their own, and each sender a part of it: however
many of them there are, they keep nobody out who has a key.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from flagpost_http.addresses import party_of
from flagpost_publisher.gateway.exchange import Shown
from flagpost_publisher.gateway.refusals import Refusal, try_again

MAX_REQUESTS: Final = 1_000
MAX_BYTES: Final = 24 * 1024 * 1024
"""Bodies in memory, each from its first byte to its answer."""
MAX_STRANGERS: Final = 64
MAX_STRANGERS_A_PARTY: Final = 32
MAX_STRANGERS_BYTES: Final = 6 * 1024 * 1024
"""64 bodies of 32 KB, and what decompressing takes."""
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
    """The bounds of one kind of request, and how much is within them."""

    def __init__(
        self,
        max_requests: int = MAX_REQUESTS,
        max_bytes: int = MAX_BYTES,
        max_requests_a_party: int | None = None,
    ) -> None:
        """Nothing is worked on yet."""
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._max_requests_a_party = max_requests_a_party or max_requests
        self._by_party: Counter[str] = Counter()
        self.requests = 0
        self.held_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Wait until nothing is worked on."""
        await self._idle.wait()

    @contextmanager
    def request(self, party: str = "") -> Iterator[Work]:
        """Work on a request. Raises Refusal."""
        if self.requests >= self._max_requests:
            raise _too_much(f"{self._max_requests} requests are worked on, and no more may be")
        if self._by_party.get(party, 0) >= self._max_requests_a_party:
            raise _too_much(f"{self._max_requests_a_party} requests of one address are worked on")
        work = Work(self)
        self.requests += 1
        self._by_party[party] += 1
        self._idle.clear()
        try:
            yield work
        finally:
            self.held_bytes -= work.held_bytes
            self.requests -= 1
            self._by_party[party] -= 1
            if not self._by_party[party]:
                del self._by_party[party]
            if self.requests == 0:
                self._idle.set()

    def take(self, count: int) -> None:
        """For `Work.hold`."""
        if self.held_bytes + count > self._max_bytes:
            raise _too_much(f"requests of {self._max_bytes} bytes are worked on, and no more may be")
        self.held_bytes += count


class Admissions:
    """Those of requests that have shown a key, and of those that have not."""

    def __init__(self) -> None:
        """Nothing is worked on yet."""
        self._known = Admission()
        self._strangers = Admission(MAX_STRANGERS, MAX_STRANGERS_BYTES, MAX_STRANGERS_A_PARTY)

    def request(self, shown: Shown, client: str) -> AbstractContextManager[Work]:
        """Work on a request of a client at that address. Raises Refusal on entering."""
        if shown is Shown.KEY:
            return self._known.request()
        return self._strangers.request(party_of(client))

    @property
    def requests(self) -> int:
        """How many are worked on."""
        return self._known.requests + self._strangers.requests

    @property
    def held_bytes(self) -> int:
        """What of their bodies is in memory."""
        return self._known.held_bytes + self._strangers.held_bytes

    async def until_idle(self) -> None:
        """Wait until nothing is worked on."""
        await self._known.until_idle()
        await self._strangers.until_idle()


def _too_much(what: str) -> Refusal:
    return try_again(what, RETRY_SECONDS, "send the request again after the time in Retry-After")
