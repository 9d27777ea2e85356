"""How many requests are processed at once.

In: requests, and bytes as they are read. Out: nothing, or a Refusal (503) if there would be too many. Requests
without a key in their headers have a small admission of their own, and each sender a part of it: however many of them
there are, they keep nobody out who has a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.refusals import Refusal, try_again

MAX_REQUESTS: Final = 1_000
MAX_BYTES: Final = 24 * 1024 * 1024
"""Bodies in memory, each from its first byte to its answer."""
MAX_STRANGERS: Final = 64
MAX_STRANGERS_BYTES: Final = 6 * 1024 * 1024
"""64 bodies of 32 KB, and the memory for decompressing."""
RETRY_SECONDS: Final = 1


class Work:
    """One request's part of the work."""

    def __init__(self, admission: Admission, share: Share) -> None:
        """Holds no bytes yet."""
        self._admission = admission
        self._share = share
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Note that this many more bytes are in memory. Raises Refusal."""
        self._admission.take(self._share, count)
        self.held_bytes += count


@dataclass(slots=True)
class Share:
    """What one party uses of the room."""

    requests: int = 0
    held_bytes: int = 0


class Admission:
    """The limits of one kind of request, and how much is in use.

    No party gets more than is still free: alone it gets half of the room, so whoever comes next finds some.
    """

    def __init__(
        self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES, whose: str = "this key"
    ) -> None:
        """Nothing is in use yet; `whose` says what a party is."""
        self._max = Share(max_requests, max_bytes)
        self._all = Share()
        self._whose = whose
        self._shares: dict[str, Share] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def requests(self) -> int:
        """How many requests are being processed."""
        return self._all.requests

    @property
    def held_bytes(self) -> int:
        """The bytes of their bodies in memory."""
        return self._all.held_bytes

    async def until_idle(self) -> None:
        """Wait until nothing is being processed."""
        await self._idle.wait()

    @contextmanager
    def request(self, party: str) -> Iterator[Work]:
        """Process a request. Raises Refusal."""
        share = self._shares.get(party, Share())
        if share.requests >= self._max.requests - self._all.requests:
            raise _too_much(f"too many requests of {self._whose} are already in progress")
        self._shares[party] = share
        work = Work(self, share)
        for each in (self._all, share):
            each.requests += 1
        self._idle.clear()
        try:
            yield work
        finally:
            for each in (self._all, share):
                each.requests -= 1
                each.held_bytes -= work.held_bytes
            if share.requests == 0:
                del self._shares[party]
            if self._all.requests == 0:
                self._idle.set()

    def take(self, share: Share, count: int) -> None:
        """Used by `Work.hold`."""
        if share.held_bytes + count > self._max.held_bytes - self._all.held_bytes:
            raise _too_much(f"too many bytes of bodies of {self._whose} are already in progress")
        for each in (self._all, share):
            each.held_bytes += count


class Admissions:
    """The admissions of requests with a key in their headers, and of those without."""

    def __init__(self) -> None:
        """Nothing is in use yet."""
        self._known = Admission()
        self._strangers = Admission(MAX_STRANGERS, MAX_STRANGERS_BYTES, "this address")

    def request(self, key: Key | None, party: str) -> AbstractContextManager[Work]:
        """Process a request, counted by its key, or without a private key by `party`. Raises Refusal on entering."""
        if key is None or key.is_public:
            return self._strangers.request(party)
        return self._known.request(key.name)

    @property
    def requests(self) -> int:
        """How many requests are being processed."""
        return self._known.requests + self._strangers.requests

    @property
    def held_bytes(self) -> int:
        """The bytes of their bodies in memory."""
        return self._known.held_bytes + self._strangers.held_bytes

    async def until_idle(self) -> None:
        """Wait until nothing is being processed. While one kind is waited for, requests of the other may come."""
        while self.requests:
            await self._known.until_idle()
            await self._strangers.until_idle()


def _too_much(what: str) -> Refusal:
    return try_again(what, RETRY_SECONDS, "send the request again after the time in Retry-After")
