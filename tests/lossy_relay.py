"""A relay in front of a server that fails in the two ways that make clients retry.

In: HTTP requests. Out: of every five of the first requests, one is answered 503 and not forwarded, and one is
forwarded but gets no answer, because the relay closes its connection. All others are forwarded unchanged.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, web

PASSED_ON = ("Authorization", "Content-Type", "Content-Encoding")
PASSED_BACK = ("Content-Type", "Retry-After")


class LossyRelay:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self, target: str, faulty: int = 20) -> None:
        """`faulty`: how many requests may fail; all later ones are forwarded."""
        self._target = target
        self._faulty = faulty
        self.requests = 0
        self.refused = 0
        self.answers_lost = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            cookie_jar=DummyCookieJar(), auto_decompress=False, timeout=ClientTimeout(60)
        )
        application = web.Application(client_max_size=2**20)
        application.router.add_post("/{path:.*}", self._relay)
        self._runner = web.AppRunner(application, auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        turn = self.requests % 5 if self.requests < self._faulty else 0
        self.requests += 1
        body = await request.read()
        if turn == 1:
            self.refused += 1
            return web.Response(status=503)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with self._session.post(self._target + request.path, data=body, headers=headers) as answer:
            content = await answer.read()
            told = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        if turn == 3 and answer.ok and request.transport is not None:
            self.answers_lost += 1
            request.transport.abort()
        return web.Response(status=answer.status, body=content, headers=told)
