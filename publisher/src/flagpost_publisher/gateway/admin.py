"""The gateway's admin server: probes and metrics.

In: the gateway's state. Out: /livez, /readyz and /metrics over HTTP, on a port of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from aiohttp import web

from flagpost_http.drops import Drops
from flagpost_http.pages import pages
from flagpost_http.server import ADMIN_LIMITS, Answering, HttpServer
from flagpost_publisher.gateway.metrics import GatewayMetrics
from flagpost_settings.metrics_page import metrics_page

Wrong: TypeAlias = Callable[[], str | None]
"""Returns what is wrong; None: nothing."""


class AdminServer:
    """Serves the admin endpoints on one address."""

    def __init__(self, wrong_alive: Wrong, wrong_ready: Wrong, metrics: GatewayMetrics) -> None:
        """Args:
        wrong_alive: returns what a restart would fix; None: nothing.
        wrong_ready: returns why requests cannot be accepted; None: they can.
        metrics: the metrics to show.
        """
        answers = {
            "/livez": _probe(wrong_alive),
            "/readyz": _probe(wrong_ready),
            "/metrics": metrics_page(metrics.registry),
        }
        drops = Drops("admin", lambda drop: metrics.dropped("admin", drop))
        self._http = HttpServer("flagpost-gateway", pages(answers), ADMIN_LIMITS, drops)

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the URL. Raises OSError if the address cannot be used."""
        return await self._http.start(host, port)

    async def close(self) -> None:
        """Stop listening."""
        await self._http.close()


def _probe(wrong: Wrong) -> Answering:
    async def answer(_: web.BaseRequest) -> web.Response:
        problem = wrong()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    return answer
