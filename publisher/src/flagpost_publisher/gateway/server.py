"""The HTTP server: every request through the same gate, every answer in JSON.

In: the table of routes. Out: a listening socket, and for each request the answer of its route or a Refusal's. Nothing
of a request is logged.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import orjson
import structlog
from aiohttp import ClientError, web

from flagpost_publisher.gateway.admission import Admission
from flagpost_publisher.gateway.bodies import read_body, require_json
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.metrics import OTHER_PATHS, GatewayMetrics
from flagpost_publisher.gateway.refusals import NOTHING, Refusal
from flagpost_publisher.gateway.routes import Route

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS: Final = 75.0
"""How long a connection may be idle, and a request's headers may take to come: longer than proxies keep theirs."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a body is read and thrown away that was refused, so that its sender reads the answer."""

CLOSE_SECONDS: Final = 1.0
"""How long answers may take to be written at the end; requests were waited for before."""


class GatewayServer:
    """Serves the routes on one address."""

    def __init__(
        self, routes: Iterable[Route], admission: Admission, max_body_bytes: int, metrics: GatewayMetrics
    ) -> None:
        """Opens nothing yet."""
        self._admission = admission
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._stopping = False
        app = web.Application()
        for route in routes:
            app.router.add_route("*", route.path, partial(self._serve, route.path, partial(self._do, route)))
        app.router.add_route("*", "/{path:.*}", partial(self._serve, OTHER_PATHS, _no_such_path))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=CLOSE_SECONDS,
            auto_decompress=False,  # `bodies` does, with a limit
        )
        self._site: web.TCPSite | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; gives the URL. Raises OSError where the address cannot be had."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, host, port)
        await self._site.start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop_listening(self) -> None:
        """Take no new connections; those that are open end with their next answer."""
        self._stopping = True
        if self._site is not None:
            await self._site.stop()

    async def close(self) -> None:
        """Close what is still open."""
        await self._runner.cleanup()

    async def _serve(
        self, label: str, do: Callable[[web.Request], Awaitable[Answer]], request: web.Request
    ) -> web.Response:
        """Answer a request, whatever becomes of it."""
        began = time.monotonic()
        headers = NOTHING
        try:
            answer = await do(request)
        except Refusal as refusal:
            answer, headers = Answer(refusal.status, refusal.document), refusal.headers
        except Exception:
            log.exception("a request has failed in a way that is not foreseen", route=label)
            answer = _defect()
        self._metrics.answered(label, answer.status, time.monotonic() - began)
        response = web.Response(
            status=answer.status,
            body=orjson.dumps(answer.document),
            content_type="application/json",
            headers={"server": "flagpost-gateway", **headers},
        )
        if self._stopping or headers.get("connection") == "close":
            response.force_close()
        return response

    async def _do(self, route: Route, request: web.Request) -> Answer:
        if request.method != "POST":
            raise Refusal(
                405,
                f"{route.path} takes POST, not {request.method}",
                fix="use POST",
                headers={"allow": "POST"},
            )
        route.guard(request.headers)
        require_json(request.headers)
        with self._admission.request() as work:
            chunks = request.content.iter_any()
            try:
                most = min(self._max_body_bytes, route.max_body_bytes)
                body = await read_body(request.headers, chunks, most, work.hold)
            except (ClientError, web.RequestPayloadError, ConnectionError):
                raise Refusal(400, "the body ended before its end", fix="send it again") from None
            self._metrics.read(len(body))
            return await route.handle(Arrival(body, request.headers, int(time.time() * 1000)))


async def _no_such_path(_: web.Request) -> Answer:
    raise Refusal(404, "there is no such path", fix="docs/gateway.md lists the paths; they begin with /v1/")


def _defect() -> Answer:
    refusal = Refusal(
        500, "the gateway has a defect; the event may be the cause", fix="look at the gateway's log"
    )
    return Answer(refusal.status, refusal.document)
