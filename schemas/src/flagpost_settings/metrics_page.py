"""The page /metrics of all our programs.

In: a registry; a request with any Accept header, or several. Out: 200, in the requested format, or in Prometheus'
text format if the client library cannot parse the request: it raises for a version that is not a number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def metrics_page(registry: CollectorRegistry) -> Handler:
    """The handler for /metrics."""
    in_the_format_asked_for = cast("Handler", make_aiohttp_handler(registry))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await in_the_format_asked_for(request)
        except (TypeError, ValueError):
            headers = request.headers.copy()
            headers.popall(hdrs.ACCEPT, None)
            return await in_the_format_asked_for(request.clone(headers=headers))

    return answer
