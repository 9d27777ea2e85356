"""Asks the schema registry on the event loop, and calls back.

In: a schema id to ask for, a time at which to be called. Out: exactly one answer for each id, whatever becomes of the
request. `core/planning/schema_lookups` decides what to ask for, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from flagpost_consumer.adapters.registry.errors import (
    RegistryNotAnswering,
    RegistryTurnsAway,
    SchemaRefused,
    SchemaUnusable,
)
from flagpost_consumer.core.planning.quarantine import fingerprint
from flagpost_consumer.core.planning.schema_lookups import (
    Found,
    NoAnswer,
    Refused,
    SchemaAnswer,
    TurnedAway,
    Unusable,
)

log = structlog.get_logger(__name__)

LONGEST_REQUEST_SECONDS = 30.0
"""The registry's client gives up before this by itself."""


class Registry(Protocol):
    """The registry's client: `schema_registry.SchemaRegistry`."""

    async def fetch(self, schema_id: int) -> str:
        """The schema's JSON. Raises SchemaRefused, SchemaUnusable, RegistryNotAnswering."""


class RegistryRequests:
    """The requests in flight to one registry, and one timer."""

    def __init__(self, registry: Registry, on_defect: Callable[[Exception], None]) -> None:
        """`on_defect` is called with what our own code raises while handling an answer or the timer."""
        self._registry = registry
        self._on_defect = on_defect
        self._requests: set[asyncio.Task[SchemaAnswer]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._stopped = False

    def ask(self, schema_id: int, on_answer: Callable[[int, SchemaAnswer], None]) -> None:
        """Ask for a schema; `on_answer` is called once, later, on the loop."""
        request = asyncio.get_running_loop().create_task(self._fetch(schema_id))
        self._requests.add(request)
        request.add_done_callback(
            lambda ended: self._guarded(lambda: self._ended(schema_id, ended, on_answer))
        )

    def wake_after(self, seconds: float | None, action: Callable[[], None]) -> None:
        """Call `action` after this many seconds instead of what was to be called before; None: call nothing."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if seconds is not None and not self._stopped:
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._guarded, action)

    def stop(self) -> None:
        """Give up the requests in flight."""
        self._stopped = True
        self.wake_after(None, lambda: None)
        for request in self._requests:
            request.cancel()

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - handed on
            self._on_defect(error)

    async def _fetch(self, schema_id: int) -> SchemaAnswer:
        try:
            async with asyncio.timeout(LONGEST_REQUEST_SECONDS):
                return Found(await self._registry.fetch(schema_id))
        except SchemaRefused as error:
            return Refused(str(error))
        except SchemaUnusable as error:
            return Unusable(str(error))
        except RegistryTurnsAway as error:
            return TurnedAway(str(error))
        except (RegistryNotAnswering, TimeoutError) as error:
            return NoAnswer(str(error) or f"no answer in {LONGEST_REQUEST_SECONDS:g} s")

    def _ended(
        self,
        schema_id: int,
        request: asyncio.Task[SchemaAnswer],
        on_answer: Callable[[int, SchemaAnswer], None],
    ) -> None:
        """Report the answer; a request that was cancelled, or made our own code raise, has none."""
        self._requests.discard(request)
        if self._stopped:
            return
        if request.cancelled():
            on_answer(schema_id, NoAnswer("the request was given up"))
        elif (error := request.exception()) is not None:
            log.error("a schema could not be asked for: a defect", fingerprint=fingerprint(error))
            on_answer(schema_id, NoAnswer(f"a defect of Flagpost's: {fingerprint(error)}"))
        else:
            on_answer(schema_id, request.result())
