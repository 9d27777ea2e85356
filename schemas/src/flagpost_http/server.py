"""A port that answers HTTP requests within bounds.

In: a function from requests to answers, a name, bounds. Out: a listening socket, and its URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from aiohttp import web

from flagpost_http.addresses import Proxies
from flagpost_http.connection import Connection, Surroundings, surroundings
from flagpost_http.crowd import CrowdLimits
from flagpost_http.drops import Drops
from flagpost_settings.urls import authority

Answering: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ADMIN_LIMITS: Final = CrowdLimits(
    connections=128, known=0, strangers_at_once=128, strangers=128, strangers_a_party=64
)
"""Of a port for probes and metrics: kubelet, Prometheus and a few people. Nobody has a key there."""
KEEP_ALIVE_SECONDS: Final = 75.0
"""How long a connection may be idle between requests: longer than proxies keep theirs."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a body is read and thrown away that was refused, so that its sender reads the answer."""
CLOSE_SECONDS: Final = 1.0
"""How long answers may take to be written at the end."""
BACKLOG: Final = 1_024
"""Connections that the kernel keeps until they are taken: many at once are not yet too many."""
NO_PROXIES: Final = Proxies()


class HttpServer:
    """Serves one address."""

    def __init__(
        self,
        name: str,
        answering: Answering,
        limits: CrowdLimits,
        drops: Drops,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        """Opens nothing yet.

        Args:
            name: what the header `server` says: without a version.
            answering: should raise nothing.
            limits: how many connections may be open.
            drops: told of connections that are ended.
            proxies: their connections are those of many clients, and not counted by address.
        """
        self._name = name
        self._answering = answering
        self._around = surroundings(name, limits, drops, proxies)
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._around.crowd)

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the URL. Raises OSError where the address cannot be used."""
        self._runner = web.ServerRunner(
            _Server(self._answer, self._around), handle_signals=False, shutdown_timeout=CLOSE_SECONDS
        )
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, host, port, backlog=BACKLOG)
        await self._site.start()
        return f"http://{authority(host, self._runner.addresses[0][1])}"

    async def stop_listening(self) -> None:
        """Take no new connections."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def close(self) -> None:
        """Close what is open."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answering(request)
        response.headers["server"] = self._name
        return response


class _Server(web.Server):
    """Makes our connections."""

    def __init__(self, handler: Answering, around: Surroundings) -> None:
        super().__init__(handler)
        self._around = around

    def __call__(self) -> Connection:
        """One for each that is opened."""
        return Connection(
            self,
            self._around,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,  # whoever reads bodies does, with a limit
        )
