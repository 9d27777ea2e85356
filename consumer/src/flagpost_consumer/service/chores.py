"""What a service does again and again: commits, secrets, Pendo's fields, garbage collection, and a check of its own
loop.

In: the loop, the settings. Out: tasks; an error in a chore does not end its task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat

import structlog

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.pendo.fields import TARGETS, read_fields
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.planning.plan import FieldCatalog
from flagpost_consumer.service.commits import Commits
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.garbage import collect_if_quiet
from flagpost_consumer.service.log import SUMMARY_SECONDS, Summary
from flagpost_consumer.service.stopping import Stopping, first_of
from flagpost_consumer.settings import PendoSettings, SettingsError

log = structlog.get_logger(__name__)

COMMIT_SECONDS = 1.0
SECRETS_SECONDS = 1.0
FIELDS_SECONDS = 300.0
FIRST_FIELDS_SECONDS = 5.0
FIELDS_RETRY_SECONDS = 10.0
"""After this long, ask Pendo again for fields that it has not returned yet; the pause doubles each time."""
LOOP_SECONDS = 1.0
SERVE_SECONDS = 5.0
GARBAGE_SECONDS = 10.0


class Chores:
    """The chores of one service."""

    def __init__(
        self, loop: EngineLoop, commits: Commits, pendo: PendoSettings, summary: Summary, stopping: Stopping
    ) -> None:
        self._loop = loop
        self._engine = loop.engine
        self._commits = commits
        self._pendo = pendo
        self._summary = summary
        self._stopping = stopping
        self.fields: FieldCatalog = {}
        """Pendo's metadata fields, as far as it has returned them."""
        self._loop_measured_at = time.monotonic()

    async def prepare(self) -> None:
        """Do what must be done before the first event: read secrets, and wait a moment for Pendo's fields.

        If they do not arrive in time, configured names are sent.
        """
        self.read_secrets()
        reading = asyncio.ensure_future(self.read_fields())
        await first_of(reading, self._stopping.requested, FIRST_FIELDS_SECONDS)
        reading.cancel()

    def start(self) -> list[asyncio.Task[None]]:
        """Start all chores; each goes on until its task is cancelled."""
        self._loop_measured_at = time.monotonic()
        writing = self._loop.writing
        chores: tuple[tuple[Iterator[float], Callable[[], Awaitable[None] | None]], ...] = (
            (repeat(min(COMMIT_SECONDS, self._commits.proof_seconds)), self.commit_if_due),
            (repeat(SECRETS_SECONDS), self.read_secrets),
            (self._field_pauses(), self.read_fields),
            (repeat(LOOP_SECONDS), self._measure_loop),
            (repeat(LOOP_SECONDS), self._loop.wake),  # a lost wake-up then costs only a second
            (repeat(LOOP_SECONDS), self._loop.http.watch),
            (repeat(SERVE_SECONDS), writing.dead_letters.serve),
            (repeat(SERVE_SECONDS), writing.ledger.serve),
            (repeat(SUMMARY_SECONDS), self._summary.say),
            (repeat(GARBAGE_SECONDS), self._collect_garbage),
        )
        return [asyncio.create_task(again_and_again(pauses, chore)) for pauses, chore in chores]

    def commit_if_due(self) -> None:
        """Commit if positions have moved, or if membership has to be proved again."""
        self._commits.if_due(clock().monotonic)

    def _collect_garbage(self) -> None:
        collect_if_quiet(self._engine.fullness)

    def read_secrets(self) -> None:
        """Use the credentials that their files hold now; a new one is tried at once."""
        sources = {
            EndpointName.TRACK: self._pendo.track_secret_source,
            EndpointName.METADATA: self._pendo.integration_key_source,
        }
        for endpoint, source in sources.items():
            try:
                changed = source is not None and self._loop.http.set_secret(endpoint, source.current())
            except SettingsError as error:
                log.warning("a secret cannot be read; its last content is used", reason=str(error))
                continue
            if changed:
                self._engine.secret_changed(endpoint, clock())
                self._loop.wake()

    async def read_fields(self) -> None:
        """Ask Pendo for its metadata fields."""
        http = self._loop.http
        if http.has_secret(EndpointName.METADATA):
            # A group that cannot be read now stays as it was when last read.
            self.fields = {**self.fields, **await read_fields(http.get_json)}
            self._engine.know_fields(self.fields)

    def _field_pauses(self) -> Iterator[float]:
        """Short pauses that grow until Pendo has returned all its fields once; then a fixed pause, because they may
        change.
        """
        pause = FIELDS_RETRY_SECONDS
        while True:
            told = {target for target, _ in self.fields}
            yield FIELDS_SECONDS if told.issuperset(TARGETS) else pause
            pause = min(2 * pause, FIELDS_SECONDS)

    def _measure_loop(self) -> None:
        """Measure how late this is called, compared with the time it waited for."""
        now = time.monotonic()
        late = now - self._loop_measured_at - LOOP_SECONDS
        self._loop.metrics.observed.loop_lag_seconds = max(0.0, late)
        self._loop_measured_at = now


async def again_and_again(pauses: Iterator[float], chore: Callable[[], Awaitable[None] | None]) -> None:
    """Call `chore` after each pause (seconds); an exception is logged, and does not end the repetition."""
    for pause in pauses:
        await asyncio.sleep(pause)
        try:
            if (waiting := chore()) is not None:
                await waiting
        except Exception:
            log.exception("a chore failed; it is retried", chore=chore.__name__)
