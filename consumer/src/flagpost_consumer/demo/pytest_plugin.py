"""A pytest fixture, `flagpost_pendo`: the Pendo stand-in, for tests of code that sends to Pendo.

In: nothing; a StandInConfig if `flagpost_pendo_config` is overridden. Out: a server that enforces Pendo's rules, in
its own thread, so that tests need no event loop. pytest loads this wherever flagpost-consumer is installed, so it
imports nothing slow before the fixture is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flagpost_consumer.demo.pendo_stand_in import (
        Endpoint,
        Faults,
        Keys,
        Received,
        StandInConfig,
        Violation,
    )
    from flagpost_consumer.demo.pendo_stand_in import PendoStandIn as _Server

START_SECONDS = 60.0
WAIT_SECONDS = 10.0


class RunningPendo:
    """A Pendo stand-in that runs in its own thread."""

    def __init__(self, config: StandInConfig) -> None:
        """Serves nothing before `start`."""
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="pendo-stand-in", daemon=True)
        self._server: _Server | None = None

    @property
    def track_url(self) -> str:
        """Where track events go: `pendo.track_url`."""
        return self._running.track_url

    @property
    def api_url(self) -> str:
        """Where metadata and queries go: `pendo.api_url`."""
        return self._running.api_url

    @property
    def keys(self) -> Keys:
        """The track secret and the integration key that it accepts."""
        return self._running.keys

    @property
    def faults(self) -> Faults:
        """The errors that it returns on purpose, from the next request on."""
        return self._running.faults

    @property
    def violations(self) -> list[Violation]:
        """Each of Pendo's rules that a request broke."""
        return list(self._running.received.violations)

    def requests(self, endpoint: Endpoint | None = None) -> list[Received]:
        """The requests so far, in order; only those to `endpoint` if given."""
        received = self._running.received
        return list(received) if endpoint is None else received.of(endpoint)

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float = WAIT_SECONDS) -> None:
        """Wait until a condition on what arrived holds; it is checked after each request.

        Raises:
            TimeoutError: it does not hold in time.
        """
        waiting = self._running.received.until(condition, timeout_seconds)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(START_SECONDS)

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            asyncio.run_coroutine_threadsafe(self._server.__aexit__(None, None, None), self._loop).result()
        stopped = Event()
        self._loop.call_soon_threadsafe(stopped.set)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        from flagpost_consumer.demo.pendo_stand_in import PendoStandIn  # noqa: PLC0415 - takes a while

        self._server = await PendoStandIn(self._config).__aenter__()

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise RuntimeError("the stand-in is not running; use the fixture flagpost_pendo")
        return self._server


@pytest.fixture
def flagpost_pendo_config() -> StandInConfig:
    """The configuration of the stand-in; override it in a conftest.py for your own keys, fields or limits."""
    from flagpost_consumer.demo.pendo_stand_in import StandInConfig  # noqa: PLC0415 - takes a while

    return StandInConfig()


@pytest.fixture
def flagpost_pendo(flagpost_pendo_config: StandInConfig) -> Iterator[RunningPendo]:
    """A Pendo stand-in for one test."""
    pendo = RunningPendo(flagpost_pendo_config)
    pendo.start()
    yield pendo
    pendo.stop()
