"""The gateway's admin server: probes and metrics.

In: what the gateway knows of itself. Out: /livez, /readyz and /metrics over HTTP, on a port of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry

from flagpost_settings.metrics_page import metrics_page

Wrong: TypeAlias = Callable[[], str | None]
"""Says what is wrong; None: nothing."""


class AdminServer:
    """Serves the admin endpoints on one address."""

    def __init__(
        self,
        wrong_alive: Callable[[], str | None],
        wrong_ready: Callable[[], str | None],
        registry: CollectorRegistry,
    ) -> None:
        """Args:
        wrong_alive: what a restart would mend; None: nothing.
        wrong_ready: what keeps requests from being taken; None: nothing.
        registry: of the metrics.
        """
        app = web.Application()
        app.router.add_get("/livez", _probe(wrong_alive))
        app.router.add_get("/readyz", _probe(wrong_ready))
        app.router.add_get("/metrics", metrics_page(registry))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def start(self, host: str, port: int) -> str:
        """Listen; gives the URL. Raises OSError where the address cannot be had."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


def _probe(wrong: Wrong) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        problem = wrong()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    return answer
