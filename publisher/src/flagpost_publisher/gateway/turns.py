"""Fair turns: one at a time; of the waiting senders, the one that has used the least time is next.

In: who wants a turn, and how long it took. Out: nothing, once it is that sender's turn. So the load of one sender
makes another wait only for as long as that other is served itself, however many wait (start-time fair queueing:
Goyal, Vin and Cheng, https://doi.org/10.1145/248157.248171). A sender that was idle has not saved up time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MAX_REMEMBERED: Final = 1_000
"""Senders whose time is remembered, besides those that wait."""


class Turns:
    """Who is served now, and who waits. Use it on the event loop."""

    def __init__(self, slice_seconds: float) -> None:
        """How long turns may follow one another before the loop does other work."""
        self._slice_seconds = slice_seconds
        self._busy = False
        self._whose = ""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._served: dict[str, float] = {}
        self._now = 0.0
        """The time that the served sender had used when its turn began: a new sender starts there."""
        self._spent_seconds = 0.0
        self._resting = False

    async def take(self, sender: str) -> None:
        """Wait until it is the sender's turn; call `give` afterwards."""
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
        """The sender's turn is over, and took this long."""
        self._busy = False
        self._served[sender] += seconds
        self._spent_seconds += seconds
        if self._spent_seconds < self._slice_seconds:
            self._next()
        if not self._resting and not self._busy:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        """The loop has done its other work."""
        self._resting = False
        self._spent_seconds = 0.0
        if self._waiting and not self._busy:
            self._next()
        elif not self._busy:  # nobody waits, so nobody has used less than others
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
        """Forget senders that neither wait nor have their turn, if there are too many: they start anew."""
        if len(self._served) > MAX_REMEMBERED:
            kept = {*self._waiting, self._whose}
            self._served = {each: had for each, had in self._served.items() if each in kept}
