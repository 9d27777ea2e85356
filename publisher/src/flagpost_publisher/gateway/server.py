"""The HTTP server: every request passes the same checks, every answer is JSON.

In: the table of routes. Out: a listening socket, and for each request the answer of its route or a Refusal's. Nothing
of a request is logged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import orjson
import structlog
from aiohttp import ClientError, web
from multidict import CIMultiDictProxy

from flagpost_http.addresses import Proxies, party_of
from flagpost_http.connection import Connection
from flagpost_http.crowd import CrowdLimits
from flagpost_http.drops import Drop, Drops
from flagpost_http.server import HttpServer
from flagpost_publisher.gateway.admission import Admissions, Work
from flagpost_publisher.gateway.bodies import (
    READ_SECONDS,
    STRANGERS_READ_SECONDS,
    read_body,
    require_media_type,
)
from flagpost_publisher.gateway.browsers import Browsers
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.key import Key, is_stranger
from flagpost_publisher.gateway.metrics import HEALTH, OTHER_PATHS, GatewayMetrics
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.routes import Route
from flagpost_settings.logs import where

log = structlog.get_logger(__name__)

NAME: Final = "flagpost-gateway"
LIMITS: Final = CrowdLimits(
    connections=900, known=800, strangers_at_once=384, strangers=256, strangers_a_party=64
)
"""A connection without a key may take 160 KB, in headers that do not end or a body that nobody reads: 60 MB in all.
Connections with a key are not counted by address, because many services may be behind one, and stay open until there
are too many: then the key with the most loses the one that it used least recently. All are within the 1,024 files
that a process may usually have.
"""
PENDO: Final = "(webhooks)"
"""Pendo's name among keys, when it has signed: no key can have it."""
HEALTH_PATHS: Final = frozenset({"/", "/healthz"})
"""Where cloud load balancers check, with GET, on the port that they send requests to."""


class GatewayServer:
    """Serves the routes on one address."""

    def __init__(
        self,
        routes: Iterable[Route],
        admissions: Admissions,
        browsers: Browsers,
        max_body_bytes: int,
        metrics: GatewayMetrics,
        proxies: Proxies,
    ) -> None:
        """Opens nothing yet."""
        self._routes = {route.path: route for route in routes}
        self._admissions = admissions
        self._browsers = browsers
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics
        self._proxies = proxies
        self._stopping = False
        self._unanswered = 0
        self._http = HttpServer(NAME, self._serve, LIMITS, Drops("gateway", self._dropped), proxies)

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the URL. Raises OSError if the address cannot be used."""
        return await self._http.start(host, port)

    async def stop_listening(self) -> None:
        """Accept no new connections; open ones end with their next answer."""
        self._stopping = True
        await self._http.stop_listening()

    async def close(self) -> None:
        """Close what is still open."""
        await self._http.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._http.connections

    @property
    def unanswered(self) -> int:
        """Requests that have no answer yet; after `close` those that will have none."""
        return self._unanswered

    def _dropped(self, drop: Drop) -> None:
        self._metrics.dropped("gateway", drop)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        """Answer a request, whatever happens to it."""
        began = time.monotonic()
        self._unanswered += 1
        label = self._label(request.path)
        try:
            response = _response(await self._answer(label, request))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            # Only its kind and place: its text may contain something of the request.
            log.error("a request has failed unexpectedly", route=label, **where(error))  # noqa: TRY400
            response = _response(_defect())
        self._metrics.answered(label, response.status, time.monotonic() - began)
        response.headers.update(self._browsers.answer_headers(request.headers))
        if self._stopping or response.headers.get("connection") == "close":
            response.force_close()
        self._unanswered -= 1
        return response

    async def _answer(self, label: str, request: web.BaseRequest) -> Answer:
        try:
            return await self._do(label, request)
        except Refusal as refusal:
            return Answer(refusal.status, refusal.document, refusal.headers)

    def _label(self, path: str) -> str:
        if path in HEALTH_PATHS:
            return HEALTH
        return path if path in self._routes else OTHER_PATHS

    async def _do(self, label: str, request: web.BaseRequest) -> Answer:
        if label == HEALTH:
            _require_method(request, "GET", "HEAD")
            return Answer(200, {"status": "ok"})
        if label == OTHER_PATHS:
            raise Refusal(
                404, "there is no such path", fix="docs/gateway.md lists the paths; they begin with /v1/"
            )
        if self._browsers.is_asked(request.method, request.headers):
            return Answer(200, {}, self._browsers.asked_headers())
        _require_method(request, "POST")
        return await self._take(self._routes[label], request)

    async def _take(self, route: Route, request: web.BaseRequest) -> Answer:
        """Read a request, if its headers allow it."""
        client = self._proxies.client(request.remote or "", request.headers.getall("x-forwarded-for", []))
        party = party_of(client)
        key = route.guard(request.headers, party)
        require_media_type(request.headers, route.media_types)
        if key is not None and not key.is_public:
            _remember(request, key.name)
        with self._admissions.request(key, party) as work:
            await _invite(request)
            body = await self._read(route, key, request, work)
            self._metrics.read(len(body))
            headers = CIMultiDictProxy(request.headers)
            answer = await route.handle(Arrival(body, headers, int(time.time() * 1000), party, key))
        shown = answer.key or key
        if shown is None or not shown.is_public:
            _remember(request, PENDO if shown is None else shown.name)
        return answer

    async def _read(self, route: Route, key: Key | None, request: web.BaseRequest, work: Work) -> bytes:
        chunks = request.content.iter_any()
        most = min(self._max_body_bytes, route.most_bytes(key))
        seconds = STRANGERS_READ_SECONDS if is_stranger(key) else READ_SECONDS
        try:
            return await read_body(request.headers, chunks, most, work.hold, seconds)
        except (ClientError, web.RequestPayloadError, ConnectionError):
            raise Refusal(400, "the body is shorter than announced", fix="send it again") from None


def _require_method(request: web.BaseRequest, *methods: str) -> None:
    if request.method not in methods:
        raise Refusal(
            405,
            f"this path accepts {methods[0]}, not {request.method}",
            fix=f"use {methods[0]}",
            headers={"allow": ", ".join(methods)},
        )


def _remember(request: web.BaseRequest, key: str) -> None:
    """A key of this name was shown on this connection."""
    if isinstance(connection := request.protocol, Connection):
        connection.has_shown_a_key(key)


async def _invite(request: web.BaseRequest) -> None:
    """Send 100 to a client that waits for it before it sends the body (RFC 9110 section 10.1.1)."""
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _response(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=orjson.dumps(answer.document),
        content_type="application/json",
        headers=answer.headers,
    )


def _defect() -> Answer:
    refusal = Refusal(
        500, "the gateway has a defect; the event may be the cause", fix="look at the gateway's log"
    )
    return Answer(refusal.status, refusal.document)
