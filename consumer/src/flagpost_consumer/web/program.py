"""`flagpost web` as a program: builds the parts, connects them, and runs until it is stopped.

In: settings. Out: an exit code. Only this module knows all the parts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, Protocol

import structlog

from flagpost_consumer.adapters.admin import Health
from flagpost_consumer.settings import SecretSource, Settings, SettingsError
from flagpost_consumer.web.asking import Asking
from flagpost_consumer.web.consumers import Consumers
from flagpost_consumer.web.following import Following, State
from flagpost_consumer.web.guard import Guard
from flagpost_consumer.web.ids import Ids
from flagpost_consumer.web.live import Live
from flagpost_consumer.web.pages import Pages
from flagpost_consumer.web.reports import Reports
from flagpost_consumer.web.server import WebServer
from flagpost_http.crowd import CrowdLimits
from flagpost_http.drops import Drops
from flagpost_http.server import HttpServer

log = structlog.get_logger(__name__)

LIMITS: Final = CrowdLimits(
    connections=256, known=192, strangers_at_once=256, strangers=256, strangers_a_party=256
)
"""Limits of the port. All connections come from one address if a login proxy is in front of it."""
STILL_SECONDS: Final = 60.0
"""After this long without progress the reading thread is considered dead: each call of Kafka's client may
take ten.
"""
TOKEN_SECONDS: Final = 1.0
"""How often to look at the token's file."""


class Token:
    """The present token; the previous one if its file cannot be read."""

    def __init__(self, source: SecretSource) -> None:
        """Raises SettingsError."""
        self._source = source
        self._text = source.current()
        self._read_at = time.monotonic()

    def current(self) -> str:
        """The token."""
        if time.monotonic() - self._read_at > TOKEN_SECONDS:
            self._read_at = time.monotonic()
            with suppress(SettingsError):
                self._text = self._source.current()
        return self._text


class Followed(Protocol):
    """What the page needs of the reading of the topics."""

    @property
    def state(self) -> State:
        """What has been read."""

    @property
    def still_seconds(self) -> float:
        """How long the reading has stood still."""


class Program:
    """One process. Create it on the event loop."""

    def __init__(self, settings: Settings, followed: Followed) -> None:
        """`followed`: what reads the topics."""
        self._followed = followed
        web, source = settings.web, settings.web.token_source
        self._web = web
        ids = Ids(web.show_ids)
        self._consumers = Consumers(web.consumers)
        self._live = Live(lambda: followed.state, ids)
        reports = Reports(self._consumers, ids)
        guard = Guard(web.hosts, None if source is None else Token(source).current)
        pages = Pages(reports, self._live)
        probes = {"/livez": self._is_live, "/readyz": self._is_ready}
        server = WebServer(
            guard, probes, lambda: followed.state, pages, reports, self._live, Asking(settings)
        )
        self._http = HttpServer("flagpost", server.answer, LIMITS, Drops("web", lambda _: None))
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Serve; returns the URL. Raises OSError if the address cannot be used."""
        url = await self._http.start(self._web.host, self._web.port)
        self._chores = [asyncio.create_task(self._live.run()), asyncio.create_task(self._consumers.run())]
        for chore in self._chores:
            chore.add_done_callback(_tell_failure)
        return url

    async def stop(self) -> None:
        """Stop serving."""
        for chore in self._chores:
            chore.cancel()
        await self._http.close()

    def _is_live(self) -> Health:
        """Whether reading and all parts still run. If the loop stands still, no answer comes at all."""
        still = self._followed.still_seconds
        if still > STILL_SECONDS:
            return Health(ok=False, detail=f"the reading of the topics has stood still for {still:.0f} s")
        if any(chore.done() and not chore.cancelled() and chore.exception() for chore in self._chores):
            return Health(ok=False, detail="a part of the page has failed; the log says which")
        return Health(ok=True, detail="live")

    def _is_ready(self) -> Health:
        """True once everything that the topics held at the start was read, and from then on: old numbers are marked
        as old.
        """
        if self._followed.state.view is None:
            return Health(ok=False, detail="the topics are being read")
        return Health(ok=True, detail="ready")


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    stop, loop, web = asyncio.Event(), asyncio.get_running_loop(), settings.web
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    following = Following(settings)
    program = Program(settings, following)
    try:
        url = await program.start()
    except OSError as error:
        log.error("the address cannot be used", host=web.host, port=web.port, error=error.strerror)  # noqa: TRY400
        return 1
    sys.stderr.write(f"web {url}\n")
    sys.stderr.flush()
    if web.token_source is None and not _is_loopback(web.host):
        log.warning(
            "everybody who reaches the port sees the page: put a login proxy before it, or set web.token"
        )
    following.start()
    await stop.wait()
    await program.stop()
    await asyncio.to_thread(following.stop)
    return 0


def _tell_failure(chore: asyncio.Task[None]) -> None:
    if not chore.cancelled() and (error := chore.exception()) is not None:
        log.error("a part of the page has failed", exc_info=error)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
