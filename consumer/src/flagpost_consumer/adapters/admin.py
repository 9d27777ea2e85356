"""The admin server: probes, metrics and status.

In: what the service knows of itself. Out: /livez, /readyz, /metrics and /status over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from flagpost_http.drops import Drop, Drops
from flagpost_http.pages import pages
from flagpost_http.server import ADMIN_LIMITS, HttpServer
from flagpost_settings.metrics_page import metrics_page


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a probe."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class AdminSources:
    """Where the answers come from."""

    live: Callable[[], Health]
    ready: Callable[[], Health]
    status: Callable[[], Mapping[str, Any]]
    registry: CollectorRegistry


class AdminHttp:
    """Serves the admin endpoints on one address."""

    def __init__(self, host: str, port: int, sources: AdminSources) -> None:
        self._host = host
        self._port = port
        self._sources = sources
        dropped = Counter(
            "flagpost_admin_connections_dropped",
            "Connections to the admin port that were closed before they were answered, by reason.",
            ["reason"],
            registry=sources.registry,
        )
        counts = {drop: dropped.labels(drop.value) for drop in Drop}
        answers = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
            "/metrics": metrics_page(sources.registry),
        }
        drops = Drops("admin", lambda drop: counts[drop].inc())
        self._http = HttpServer("flagpost", pages(answers), ADMIN_LIMITS, drops)

    async def start(self) -> str:
        """Listen; returns the URL. Raises OSError if the address cannot be used."""
        return await self._http.start(self._host, self._port)

    async def stop(self) -> None:
        """Stop listening."""
        await self._http.close()

    async def _livez(self, _: web.BaseRequest) -> web.Response:
        return _answer(self._sources.live())

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        return _answer(self._sources.ready())

    async def _status(self, _: web.BaseRequest) -> web.Response:
        body = orjson.dumps(self._sources.status(), option=orjson.OPT_INDENT_2)
        return web.Response(body=body, content_type="application/json")


def _answer(health: Health) -> web.Response:
    return web.Response(text=health.detail + "\n", status=200 if health.ok else 503)
