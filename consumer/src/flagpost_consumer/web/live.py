"""The live part: present traffic, as server-sent events.

In: the state, as it changes. Out: a message a second to each watching browser, the same for all and made once. At
most `MAX_LIVE` watch at a time, each for an hour at most: a browser then connects again, and its login is checked
again. The server closes the connection of a browser that does not read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import web

from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.terminal.times import moment_text
from flagpost_consumer.web.aggregates import Recent, View
from flagpost_consumer.web.following import State
from flagpost_consumer.web.ids import Ids

MAX_LIVE: Final = 32
LIVE_SECONDS: Final = 3_600.0
TICK_SECONDS: Final = 1.0
RATE_SECONDS: Final = 10.0
"""The time over which rates are averaged."""
COLUMNS: Final = ("Settled", "Outcome", "Reason", "Flag", "Variation", "Visitor")


class Live:
    """The stream."""

    def __init__(self, state: Callable[[], State], ids: Ids) -> None:
        self._state = state
        self._ids = ids
        self._ticks: list[tuple[float, dict[str, int]]] = []
        self._message = b": nothing yet\n\n"
        self._told = asyncio.Condition()
        self.watching = 0
        """The number of watching browsers."""

    async def run(self) -> None:
        """Make a message a second, until cancelled."""
        while True:
            view = self._state().view
            if view is not None:
                self._tick(view)
                if self.watching:
                    self._message = b"data: " + orjson.dumps(self.told(view)) + b"\n\n"
            async with self._told:
                self._told.notify_all()
            await asyncio.sleep(TICK_SECONDS)

    def told(self, view: View) -> dict[str, object]:
        """The content of a message."""
        return {"numbers": self.numbers(view), "rows": [list(self.row(each)) for each in view.recent]}

    def numbers(self, view: View) -> dict[str, str]:
        """Settlements a second by outcome, and how many wait."""
        rates = {outcome.value: f"{self._rate(outcome.value):,.1f}" for outcome in Outcome}
        return {**rates, "pending": f"{view.totals.pending + view.metadata.pending:,}"}

    def row(self, recent: Recent) -> tuple[str, ...]:
        """One settlement as a row of the table."""
        entry = recent.entry
        who = self._ids.shown(entry.visitor_id or entry.account_id)
        texts = (entry.outcome, entry.reason, entry.flag_key or entry.event, entry.variation_key, who)
        return moment_text(recent.settled_at), *(text or "-" for text in texts)

    async def answer(self, request: web.BaseRequest, headers: dict[str, str]) -> web.StreamResponse:
        """Stream to one browser, until it disconnects."""
        if self.watching >= MAX_LIVE:
            refused = {**headers, "retry-after": "30"}
            return web.Response(
                status=503, text=f"{MAX_LIVE} browsers already watch this.\n", headers=refused
            )
        response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream"})
        self.watching += 1
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await self._stream(response)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the browser has gone, or the page ends
        finally:
            self.watching -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        ends_at = time.monotonic() + LIVE_SECONDS
        await response.write(b"retry: 3000\n\n")
        while time.monotonic() < ends_at:
            async with self._told:
                await self._told.wait()
            await response.write(self._message)

    def _tick(self, view: View) -> None:
        now = time.monotonic()
        self._ticks.append((now, dict(view.settled)))
        while len(self._ticks) > 2 and now - self._ticks[0][0] > RATE_SECONDS:
            self._ticks.pop(0)

    def _rate(self, outcome: str) -> float:
        """0 if a new reading has begun to count again."""
        if len(self._ticks) < 2:
            return 0.0
        (began, before), (now, after) = self._ticks[0], self._ticks[-1]
        return max(0, after[outcome] - before[outcome]) / max(now - began, 1e-3)
