"""How much is worked on at once.

In: requests, and bytes as they are read. Out: nothing, or a Refusal (503) where there would be too many. Requests
that have shown no key before their body have a small admission of their own, and each sender a part of it: however
many of them there are, they keep nobody out who has a key.
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
"""64 bodies of 32 KB, and what decompressing takes."""
RETRY_SECONDS: Final = 1


class Work:
    """One request's share of what is worked on."""

    def __init__(self, admission: Admission, share: Share) -> None:
        """Holds no bytes yet."""
        self._admission = admission
        self._share = share
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """So many bytes more are in memory. Raises Refusal."""
        self._admission.take(self._share, count)
        self.held_bytes += count


@dataclass(slots=True)
class Share:
    """What one party has of the room."""

    requests: int = 0
    held_bytes: int = 0


class Admission:
    """The bounds of one kind of request, and how much is within them.

    No party takes more than is still free: alone it has half of the room, and whoever comes next finds some.
    """

    def __init__(
        self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES, whose: str = "this key"
    ) -> None:
        """Nothing is worked on yet; `whose` says what a party is."""
        self._max = Share(max_requests, max_bytes)
        self._all = Share()
        self._whose = whose
        self._shares: dict[str, Share] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def requests(self) -> int:
        """How many are worked on."""
        return self._all.requests

    @property
    def held_bytes(self) -> int:
        """What of their bodies is in memory."""
        return self._all.held_bytes

    async def until_idle(self) -> None:
        """Wait until nothing is worked on."""
        await self._idle.wait()

    @contextmanager
    def request(self, party: str) -> Iterator[Work]:
        """Work on a request. Raises Refusal."""
        share = self._shares.get(party, Share())
        if share.requests >= self._max.requests - self._all.requests:
            raise _too_much(f"requests of {self._whose} are worked on, as many as there is room for")
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
        """For `Work.hold`."""
        if share.held_bytes + count > self._max.held_bytes - self._all.held_bytes:
            raise _too_much(f"bodies of {self._whose} are worked on, as many as there is room for")
        for each in (self._all, share):
            each.held_bytes += count


class Admissions:
    """Those of requests that have shown a key, and of those that have not."""

    def __init__(self) -> None:
        """Nothing is worked on yet."""
        self._known = Admission()
        self._strangers = Admission(MAX_STRANGERS, MAX_STRANGERS_BYTES, "this address")

    def request(self, key: Key | None, party: str) -> AbstractContextManager[Work]:
        """Work on a request: whose, and of whom at which address. Raises Refusal on entering."""
        if key is None or key.is_public:
            return self._strangers.request(party)
        return self._known.request(key.name)

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
