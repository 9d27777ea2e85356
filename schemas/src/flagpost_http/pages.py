"""A port of a few pages that are only read, such as probes and metrics.

In: paths, and what answers each. Out: a function for `HttpServer`, which answers 404 and 405 for everything else, and
500 where a page fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import web

from flagpost_http.server import Answering

log = structlog.get_logger(__name__)

METHODS: Final = ("GET", "HEAD")


def pages(answers: Mapping[str, Answering]) -> Answering:
    """Serve these paths."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        page = answers.get(request.path)
        if page is None:
            return web.Response(status=404, text=f"There is: {', '.join(answers)}\n")
        if request.method not in METHODS:
            return web.Response(status=405, text="Use GET.\n", headers={"allow": ", ".join(METHODS)})
        try:
            return await page(request)
        except Exception:
            # Nothing of a request is in it: pages are asked for nothing but their path.
            log.exception("a page has failed", path=request.path)
            return web.Response(status=500, text="The page has failed; the log says why.\n")

    return answer
