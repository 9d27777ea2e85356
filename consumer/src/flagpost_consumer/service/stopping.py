"""How far a service's end has come, and waits that its end cuts short.

In: the request to stop, turns of the engine. Out: flags for everything that waits or would still begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Stopping:
    """The end of one service: requested, aborted, drained, ended."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        """Drain and end."""
        self.aborted = asyncio.Event()
        """End at once: a second signal, or a defect."""
        self.drained = False
        """Nothing is waited for any more."""
        self.ended = False
        """Nothing is committed or written any more: answers are too late to be used."""
        self.abandoned_requests = 0
        """Requests in flight that were given up since the end was requested."""
        self._progress = asyncio.Event()

    def request(self) -> None:
        """Drain and end; requested a second time, end at once."""
        if self.requested.is_set():
            self.abort()
        self.requested.set()

    def abort(self) -> None:
        """End at once."""
        self.aborted.set()
        self.requested.set()
        self.progressed()

    def drain_ended(self) -> None:
        """Stop waiting for requests in flight."""
        self.drained = True
        self.progressed()

    def progressed(self) -> None:
        """Let those that wait for the engine check again."""
        self._progress.set()

    async def until(self, reached: Callable[[], bool], limit_seconds: float) -> None:
        """Wait until the engine has reached a state, or for a time."""
        try:
            async with asyncio.timeout(limit_seconds):
                while not reached():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning(
                "requests in flight, or their settlements, did not end in time", seconds=limit_seconds
            )


async def first_of(
    ended: asyncio.Future[None], event: asyncio.Event, limit_seconds: float | None = None
) -> None:
    """Wait for whichever ends first, or for a time."""
    waiting = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {ended, waiting}
    await asyncio.wait(both, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
