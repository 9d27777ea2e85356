"""Long documents are read in slices: one at a time, and what else is to be done goes on in between.

In: how long a document is. Out: a turn to read it, and pauses within it. A short document is read in one go: it costs
a few milliseconds at most, and less than to wait for one's turn. A long one waits until no other long one is read,
so that no more than one is in memory as Python's objects, which take thirty times what they take as JSON.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

SHORT_BYTES: Final = 32_768
"""What is short: one message of Segment's, as long as it may be."""
SLICE_SECONDS: Final = 0.005
"""How long a document is read before the loop may do something else."""


class Turn:
    """The reading of one document."""

    def __init__(self, slice_seconds: float, timer: Callable[[], float]) -> None:
        """The first slice begins."""
        self._slice_seconds = slice_seconds
        self._timer = timer
        self._until = timer() + slice_seconds

    async def pause(self) -> None:
        """Let the loop go on, if the slice is over."""
        if self._timer() >= self._until:
            await asyncio.sleep(0)
            self._until = self._timer() + self._slice_seconds


class Slices:
    """Who may read now."""

    def __init__(
        self, slice_seconds: float = SLICE_SECONDS, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is read yet."""
        self._slice_seconds = slice_seconds
        self._timer = timer
        self._long = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[Turn]:
        """Wait until a document of so many bytes may be read; it may be until the end of the block."""
        if size_bytes <= SHORT_BYTES:
            yield Turn(float("inf"), self._timer)
            return
        async with self._long:
            yield Turn(self._slice_seconds, self._timer)
