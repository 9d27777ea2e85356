"""The server around Pendo: reads requests, sends answers.

In: HTTP. Out: HTTP, or what a fault requires instead. It decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from aiohttp import web

from flagpost_consumer.demo.pendo_stand_in.config import Keys, StandInConfig
from flagpost_consumer.demo.pendo_stand_in.control import PREFIX, Control
from flagpost_consumer.demo.pendo_stand_in.faults import Faults
from flagpost_consumer.demo.pendo_stand_in.metadata import Metadata
from flagpost_consumer.demo.pendo_stand_in.pendo import Pendo
from flagpost_consumer.demo.pendo_stand_in.received import ReceivedLog
from flagpost_consumer.demo.pendo_stand_in.traffic import Answer, Arrival, Ending, details_route, routes
from flagpost_settings.urls import authority

_NO_HTTP = b"\x15\x03\x03 this is not HTTP\r\n\r\n"
_STOP_SECONDS = 0.1
"""When the server stops, requests without an answer (hangs, delays) are given up after this long."""
_BACKLOG = 1024

_DEFAULT_CONFIG = StandInConfig()


class PendoStandIn:
    """A running stand-in, as an async context manager. Use it from its own event loop."""

    def __init__(
        self, config: StandInConfig = _DEFAULT_CONFIG, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Port 0 picks a free one."""
        self._config = config
        self._host, self._port = host, port
        self._routes = routes()
        self._paths = {path for _, path in self._routes}
        self._pendo = Pendo(config)
        self._control = Control(self._pendo)
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, once it runs."""
        return f"http://{authority(self._host, self._port)}"

    @property
    def api_url(self) -> str:
        """The value for `pendo.api_url`."""
        return self.url

    @property
    def track_url(self) -> str:
        """The value for `pendo.track_url`."""
        return f"{self.url}/data/track"

    @property
    def received(self) -> ReceivedLog:
        """What has arrived so far."""
        return self._pendo.received

    @property
    def faults(self) -> Faults:
        """The faults that are scripted."""
        return self._pendo.faults

    @property
    def metadata(self) -> Metadata:
        """The metadata that is stored."""
        return self._pendo.metadata

    @property
    def keys(self) -> Keys:
        """What clients must present; may be replaced at any time."""
        return self._pendo.keys

    @keys.setter
    def keys(self, keys: Keys) -> None:
        self._pendo.keys = keys

    def reset(self) -> None:
        """Forget what was received and what was scripted; keys and fields stay."""
        self._pendo.reset()

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError if the address cannot be used."""
        server = web.Server(
            self._serve,
            # Without it, a handler that hangs would wait for ever after its client has disconnected.
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self._config.keep_alive_seconds,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; unanswered requests are given up."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        at_seconds, wall_ms = time.monotonic(), time.time_ns() // 1_000_000
        path = request.raw_path.partition("?")[0]
        route = self._routes.get((request.method, path)) or details_route(request.method, path)
        if route is None:
            return await self._serve_others(request, path)
        headers = request.headers
        arrival = Arrival(
            route=route,
            path=request.raw_path,
            presented_key=headers.get(self._config.key_header, ""),
            content_type=headers.get("Content-Type", ""),
            body=await request.content.read(),
            at_seconds=at_seconds,
            wall_ms=wall_ms,
        )
        answer = self._pendo.answer(arrival)
        try:
            return await _carry_out(request, answer)
        finally:
            self._pendo.release(route, answer)

    async def _serve_others(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path.startswith(PREFIX):
            return await self._control.serve(request, path.removeprefix(PREFIX))
        return web.Response(status=405 if path in self._paths else 404)


async def _carry_out(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.delay_seconds:
        await asyncio.sleep(answer.delay_seconds)
    if answer.ending is Ending.HANG:
        await asyncio.get_running_loop().create_future()  # until the client disconnects or the stand-in stops
    if answer.ending is not Ending.ANSWER:
        _close(request, _NO_HTTP if answer.ending is Ending.NOT_HTTP else b"")
    # If the connection is already closed, aiohttp drops this.
    return web.Response(status=answer.status or 500, body=answer.body, headers=answer.headers)


def _close(request: web.BaseRequest, last_words: bytes) -> None:
    """Close the connection after sending what was written before."""
    transport = request.transport
    if transport is not None:
        transport.write(last_words)
        transport.close()
