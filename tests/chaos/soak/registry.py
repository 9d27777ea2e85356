"""A schema registry that lies: it is behind, fails or is silent, as `mood` says, and always refuses some ids.

In: requests for ids. Out: answers in the form of Confluent's API. Every id outside of the two ranges below is that of
TrackEvent's schema, and an honest registry returns it.
"""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from flagpost_schemas import TrackEvent, schema_of

UNKNOWN_IDS: Final = range(900_000, 900_100)
"""Ids that are always answered with 404."""
REFUSED_IDS: Final = range(910_000, 910_100)
"""Ids that are always answered with 403, as for a subject that the client may not read."""
BEHIND_SECONDS: Final = 2.0
"""How long a replica that is behind does not know an id, from the first request for it."""
_ERROR_CODES: Final = {404: 40403, 403: 40301}


class Mood(StrEnum):
    """How the registry answers."""

    HONEST = "honest"
    BEHIND = "behind"
    """404 for an id until BEHIND_SECONDS after the first request for it, as from a replica that lags."""
    FAILING = "failing"
    """503."""
    SILENT = "silent"
    """No answer at all."""


class LyingRegistry:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.mood = Mood.HONEST
        self.requests = 0
        self.url = ""
        self._first_asked_at: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/schemas/ids/{id}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        schema_id, now = int(request.match_info["id"]), time.monotonic()
        asked_at = self._first_asked_at.setdefault(schema_id, now)
        match self.mood:
            case Mood.FAILING:
                return web.Response(status=503)
            case Mood.SILENT:
                await asyncio.get_running_loop().create_future()  # until the client disconnects
            case Mood.BEHIND if now - asked_at < BEHIND_SECONDS:
                return _error(404)
            case _:
                pass
        if schema_id in UNKNOWN_IDS:
            return _error(404)
        if schema_id in REFUSED_IDS:
            return _error(403)
        return web.json_response({"schema": schema_of(TrackEvent).text})


def _error(status: int) -> web.Response:
    return web.json_response({"error_code": _ERROR_CODES[status], "message": "no"}, status=status)
