"""The admin server: probes, metrics and status.

In: what the service knows of itself. Out: /livez, /readyz, /metrics and /status over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry

from flagpost_settings.metrics_page import metrics_page


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe."""

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
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; gives the URL. Raises OSError where the address cannot be had."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", metrics_page(self._sources.registry))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        return f"http://{self._host}:{port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self._sources.live())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._sources.ready())

    async def _status(self, _: web.Request) -> web.Response:
        body = orjson.dumps(self._sources.status(), option=orjson.OPT_INDENT_2)
        return web.Response(body=body, content_type="application/json")


def _answer(health: Health) -> web.Response:
    return web.Response(text=health.detail + "\n", status=200 if health.ok else 503)
