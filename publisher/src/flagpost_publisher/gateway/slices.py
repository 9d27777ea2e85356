"""Documents are read in slices, fairly: each sender gets its turn, and the loop does other work in between.

In: whose document, and how long it is. Out: a turn to read it, and pauses within it. A short document is read in one
go: it costs a few milliseconds at most. A long one waits until no other long one is read, so that no more than one is
in memory as Python objects, which take thirty times the size of the JSON.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from flagpost_publisher.gateway.turns import Turns

SHORT_BYTES: Final = 32_768
"""The limit of a short document: the longest single message of Segment's."""
SLICE_SECONDS: Final = 0.005
"""How long documents are read before the loop may do other work."""


class Slice:
    """The reading of one document: its present slice."""

    def __init__(self, turns: Turns, sender: str, slice_seconds: float, timer: Callable[[], float]) -> None:
        """The first slice begins."""
        self._turns = turns
        self._sender = sender
        self._slice_seconds = slice_seconds
        self._timer = timer
        self._began = timer()
        self._is_held = True

    async def pause(self) -> None:
        """Let others have their turn, if the slice is over."""
        if self._timer() - self._began >= self._slice_seconds:
            self.end()
            await self._turns.take(self._sender)
            self._is_held = True
            self._began = self._timer()

    def end(self) -> None:
        """Let others have their turn, if they do not have it already."""
        if not self._is_held:
            return
        self._is_held = False
        self._turns.give(self._sender, self._timer() - self._began)


class Slices:
    """Who may read now."""

    def __init__(
        self, slice_seconds: float = SLICE_SECONDS, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is read yet."""
        self._slice_seconds = slice_seconds
        self._timer = timer
        self._turns = Turns(slice_seconds)
        self._long = Turns(math.inf)

    @asynccontextmanager
    async def turn(self, sender: str, size_bytes: int) -> AsyncIterator[Slice]:
        """Wait until a document of this many bytes may be read; it may be read until the end of the block."""
        if size_bytes <= SHORT_BYTES:
            async with self._slice(sender, math.inf) as reading:
                yield reading
            return
        await self._long.take(sender)
        began = self._timer()
        try:
            async with self._slice(sender, self._slice_seconds) as reading:
                yield reading
        finally:
            self._long.give(sender, self._timer() - began)

    @asynccontextmanager
    async def _slice(self, sender: str, slice_seconds: float) -> AsyncIterator[Slice]:
        await self._turns.take(sender)
        reading = Slice(self._turns, sender, slice_seconds, self._timer)
        try:
            yield reading
        finally:
            reading.end()
