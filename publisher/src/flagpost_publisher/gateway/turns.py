"""Turns, fairly: one at a time, and of those who wait whoever's sender has had the least.

In: who wants a turn, and how long it took. Out: nothing, once it is theirs. So a sender's load makes another wait for
as long again as that one is served, and no longer, however many wait (start-time fair queueing: Goyal, Vin and Cheng,
https://doi.org/10.1145/248157.248171). Who has not wanted anything for a while has saved nothing up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MAX_REMEMBERED: Final = 1_000
"""Senders whose time is remembered, besides those that wait."""


class Turns:
    """Who is served now, and who waits. On the event loop."""

    def __init__(self, slice_seconds: float) -> None:
        """For how long turns may follow one another before the loop does something else."""
        self._slice_seconds = slice_seconds
        self._busy = False
        self._whose = ""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._served: dict[str, float] = {}
        self._now = 0.0
        """What whoever is served had when its turn began: who comes anew begins there."""
        self._spent_seconds = 0.0
        self._resting = False

    async def take(self, sender: str) -> None:
        """Wait until it is the sender's turn; to be followed by `give`."""
        self._forget()
        self._served[sender] = max(self._served.get(sender, 0.0), self._now)
        if not self._busy and not self._waiting and self._spent_seconds < self._slice_seconds:
            self._begin(sender)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(sender, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(sender, 0.0)
            raise

    def give(self, sender: str, seconds: float) -> None:
        """The sender's turn is over, and took so long."""
        self._busy = False
        self._served[sender] += seconds
        self._spent_seconds += seconds
        if self._spent_seconds < self._slice_seconds:
            self._next()
        if not self._resting and not self._busy:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        """The loop has been round."""
        self._resting = False
        self._spent_seconds = 0.0
        if self._waiting and not self._busy:
            self._next()
        elif not self._busy:  # nobody wants anything, so nobody is behind
            self._served.clear()
            self._now = 0.0

    def _next(self) -> None:
        while self._waiting:
            sender = min(self._waiting, key=self._served.__getitem__)
            turn = self._waiting[sender].popleft()
            if not self._waiting[sender]:
                del self._waiting[sender]
            if not turn.done():  # given up meanwhile
                self._begin(sender)
                turn.set_result(None)
                return

    def _begin(self, sender: str) -> None:
        self._busy = True
        self._whose = sender
        self._now = self._served[sender]

    def _forget(self) -> None:
        """Leave out who neither waits nor has its turn, where they are too many: who comes again begins anew."""
        if len(self._served) > MAX_REMEMBERED:
            kept = {*self._waiting, self._whose}
            self._served = {each: had for each, had in self._served.items() if each in kept}
