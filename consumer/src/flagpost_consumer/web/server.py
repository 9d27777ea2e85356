"""Answers the requests of the page's port.

In: requests that `guard` lets through. Out: pages, CSV, the live stream, files; each with headers that allow a
browser only to show it. Everybody may call the probes: they reveal nothing of the content.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

import structlog
from aiohttp import web

from flagpost_consumer.adapters.admin import Health
from flagpost_consumer.web.asking import Asking, NotAnswered
from flagpost_consumer.web.following import State
from flagpost_consumer.web.guard import Guard, Refusal
from flagpost_consumer.web.html import Html
from flagpost_consumer.web.live import Live
from flagpost_consumer.web.pages import Pages, notice
from flagpost_consumer.web.reports import Reports
from flagpost_consumer.web.tables import Table

log = structlog.get_logger(__name__)

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
STATIC: Final = {
    "/static/style.css": ("style.css", "text/css"),
    "/static/live.js": ("live.js", "text/javascript"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
CSV: Final = "/csv/"
MAX_QUERY: Final = 4_096

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class WebServer:
    """The answer for each path."""

    def __init__(
        self,
        guard: Guard,
        probes: Mapping[str, Callable[[], Health]],
        state: Callable[[], State],
        pages: Pages,
        reports: Reports,
        live: Live,
        asking: Asking,
    ) -> None:
        self._guard = guard
        self._probes = probes
        self._state = state
        self._pages = pages
        self._reports = reports
        self._live = live
        self._asking = asking
        self._paths: Mapping[str, Answering] = {
            "/": self._overview,
            "/flag": self._flag,
            "/dead-letters": self._dead_letters,
            "/dead-letter": self._dead_letter,
            "/explain": self._explain,
            "/live": lambda request: self._live.answer(request, HEADERS),
        }
        folder = files("flagpost_consumer.web") / "static"
        self._static = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in STATIC.items()}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; raises nothing."""
        try:
            return await self._answer(request)
        except NotAnswered as error:
            return _page(notice("No answer", str(error)), error.status)
        except Exception as error:  # noqa: BLE001
            # Without its text and the traceback: they may contain what was asked for, which may be an id.
            log.error(  # noqa: TRY400
                "a page has failed", path=request.path, error=type(error).__name__
            )
            return _page(
                notice("No answer", "This page failed because of a defect in Flagpost; see the log."), 500
            )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in self._probes:
            return _health(self._probes[request.path]())
        is_page = request.path in self._paths and request.path != "/live"
        refusal = self._guard.refusal(request.method, request.headers, is_page=is_page)
        if refusal is not None:
            return _refused(refusal)
        if len(request.query_string) > MAX_QUERY:
            return _page(notice("No answer", "The address is too long."), 414)
        if request.path.startswith(CSV):
            return await self._csv(request)
        if request.path in self._static:
            body, kind = self._static[request.path]
            return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)
        return await self._paths.get(request.path, _not_found)(request)

    async def _overview(self, _: web.BaseRequest) -> web.Response:
        return _page(self._pages.overview(self._state()))

    async def _flag(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.flag(self._state(), request.query.get("key", ""))
        if page is None:
            return _page(notice("Not found", "No decision of that flag was published in this window."), 404)
        return _page(page)

    async def _dead_letters(self, request: web.BaseRequest) -> web.Response:
        return _page(self._pages.dead_letters(self._state(), request.query.get("reason")))

    async def _dead_letter(self, request: web.BaseRequest) -> web.Response:
        found = await self._asking.dead_letter(request.query.get("place", ""))
        return _page(self._pages.dead_letter(found))

    async def _explain(self, request: web.BaseRequest) -> web.Response:
        visitor = request.query.get("visitor", "")
        return _page(self._pages.explain(await self._asking.visitor(visitor) if visitor else None))

    async def _csv(self, request: web.BaseRequest) -> web.Response:
        if request.path == f"{CSV}explain":
            found = await self._asking.visitor(request.query.get("visitor", ""))
            return _csv(self._reports.explained(found))
        view = self._state().view
        if view is None:
            raise NotAnswered(503, "The topics are being read; retry when the page shows numbers.")
        table = self._reports.table(request.path.removeprefix(CSV), request.query, view)
        if table is None:
            return _page(notice("Not found", "There is no such table."), 404)
        return _csv(table)


async def _not_found(_: web.BaseRequest) -> web.Response:
    return _page(notice("Not found", "There is no such page."), 404)


def _page(page: Html, status: int = 200) -> web.Response:
    # A lone surrogate is not a character; visible() has escaped it.
    return web.Response(
        text=str(page), status=status, content_type="text/html", charset="utf-8", headers=HEADERS
    )


def _health(health: Health) -> web.Response:
    return web.Response(text=health.detail + "\n", status=200 if health.ok else 503, headers=HEADERS)


def _csv(table: Table) -> web.Response:
    headers = {**HEADERS, "content-disposition": f'attachment; filename="flagpost-{table.name}.csv"'}
    body = table.as_csv().encode("utf-8", "backslashreplace")
    return web.Response(body=body, content_type="text/csv", charset="utf-8", headers=headers)


def _refused(refusal: Refusal) -> web.Response:
    headers = {**HEADERS, **refusal.headers}
    return web.Response(text=refusal.text + "\n", status=refusal.status, headers=headers)
