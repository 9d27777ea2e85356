"""The loop between the engine and the world.

In: decoded records, Pendo's answers, Kafka's acknowledgements, the time. Out: requests, settlements to write,
positions to commit, intake paused or not. It owns the adapters that call back: decoding, HTTP, and what writes to
Kafka.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

import structlog

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.decoding import Decoding
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.metrics import Metrics
from flagpost_consumer.adapters.pendo.address import pendo_address
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry
from flagpost_consumer.adapters.registry.schema_source import RegistryRequests
from flagpost_consumer.core.actions import Actions
from flagpost_consumer.core.books.deliveries import Position, Settled
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.moments import earliest
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.records import Record, Undecoded
from flagpost_consumer.core.tracks.appetite import PATIENCE_SECONDS
from flagpost_consumer.service.defects import Defects, vital
from flagpost_consumer.service.log import PendoStates
from flagpost_consumer.service.status import Status
from flagpost_consumer.service.stopping import Stopping
from flagpost_consumer.service.timers import TIMER_SLACK_SECONDS
from flagpost_consumer.service.writing import Writing
from flagpost_consumer.settings import Settings

log = structlog.get_logger(__name__)


class EngineLoop:
    """Connects one engine with the world, on the event loop."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        defects: Defects,
        stopping: Stopping,
        on_settled: Callable[[Settled], None] | None,
    ) -> None:
        """`on_settled` is called with every delivery whose ending counts."""
        self.engine = engine
        self.metrics = metrics
        self.defects = defects
        self._stopping = stopping
        self.intake: KafkaIntake | None = None
        """The thread that owns Kafka's consumer, once it exists."""
        self.registry: SchemaRegistry | None = None
        self.decoding = self._decoding(settings)
        self.http = PendoHttp(pendo_address(settings), self.answered, settings.pendo.outbound)
        self.writing = Writing(settings, engine, metrics, defects, self.wake, on_settled)
        self._states = PendoStates(engine)
        self.status = Status(engine, metrics, self._states, settings.kafka.group_id, clock().wall_ms)
        self._answers: deque[tuple[Attempt, Answer, float]] = deque()
        """Answers that have arrived since the engine last got any."""
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.paused = False
        """Whether nothing is read."""
        self.overdue_since: float | None = None
        """Since when a request has been due and has not started."""

    def _decoding(self, settings: Settings) -> Decoding:
        return Decoding(
            self._registry_requests(settings),
            self.receive,
            max_event_bytes=settings.kafka.max_event_bytes,
            unknown_seconds=settings.kafka.schema_registry.unknown_seconds,
            on_change=self.wake,
            on_quarantined=self._count_quarantined,
            is_full=lambda: self.engine.is_full,
            is_wanted=self.engine.wants_records,
            is_settled=self.engine.is_settled_undecoded,
            is_fresh=lambda message: self.intake is not None and self.intake.is_fresh(message),
            # For the metrics of flags each decision is needed decoded.
            puts_off=(lambda: False) if settings.metrics.flags else self.engine.looks_for_duplicates,
        )

    def _registry_requests(self, settings: Settings) -> RegistryRequests | None:
        registry = settings.kafka.schema_registry
        if registry.url is None:
            return None
        self.registry = SchemaRegistry(registry.url, registry)
        return RegistryRequests(self.registry, self.defects.fail)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()
        if self.registry is not None:
            await self.registry.close()

    # Turns

    def wake(self) -> None:
        """Let the engine act soon, once however often this is called."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    @vital
    def _turn(self) -> None:
        self._turn_scheduled = False
        now = clock()
        actions = self.engine.poll(now)
        for attempt in actions.attempts:
            self.http.start(attempt)
        self.writing.write(actions.settlements)
        self.writing.write_duplicates(actions.duplicates)
        wake_at = actions.wake_at
        if self.decoding.is_behind:
            (self.decoding.wait if actions.intake_paused else self.decoding.go_on)()
            wake_at = earliest(wake_at, now.monotonic + PATIENCE_SECONDS)
        self._pause(actions)
        self._set_timer(wake_at, now.monotonic)
        self.note_overdue(actions.wake_at, now.monotonic)
        self._states.say()
        self._stopping.progressed()

    def _pause(self, actions: Actions) -> None:
        paused = actions.intake_paused or (self.decoding.is_behind and self.engine.is_full)
        if paused != self.paused:
            self.paused = paused
            log.info("intake paused" if paused else "intake resumed", pending=self.engine.pending_records)
        if self.intake is not None:
            self.intake.pause(paused, actions.partitions_paused | self.decoding.full_partitions)

    def _set_timer(self, wake_at: float | None, now: float) -> None:
        """Let the engine act again at a moment. An earlier timer stays, and may fire for nothing."""
        if wake_at is None or (self._timer is not None and self._timer_at <= wake_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake_at
        delay = max(0.0, wake_at - now) + TIMER_SLACK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(delay, self._timer_ended)

    def _timer_ended(self) -> None:
        self._timer = None
        self.wake()

    def note_overdue(self, wake_at: float | None, now: float) -> None:
        """A request that is due although the engine has just acted will not start: a defect, if it lasts."""
        if wake_at is None or wake_at > now:
            self.overdue_since = None
        elif self.overdue_since is None:
            self.overdue_since = now

    def commit(self, positions: Mapping[int, Position]) -> None:
        """Have positions committed to Kafka; after a defect nothing is committed any more."""
        if self.intake is not None and not self.defects.failed:
            self.intake.commit(positions)

    # Records in, answers in

    @vital
    def receive(self, records: list[Record | Undecoded]) -> None:
        """Records have arrived; most are decoded."""
        self.engine.receive(records, clock())
        self.metrics.received(records)
        self.wake()

    def _count_quarantined(self) -> None:
        self.metrics.observed.quarantined += 1

    def answered(self, attempt: Attempt, answer: Answer, seconds: float) -> None:
        """An answer arrived; it is handled once the loop has read what came on other connections (decision 0036)."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._take_answers)
        self._answers.append((attempt, answer, seconds))

    @vital
    def _take_answers(self) -> None:
        if self._stopping.ended:
            return
        now = clock()
        while self._answers:
            attempt, answer, seconds = self._answers.popleft()
            self.metrics.request_answered(attempt, answer, seconds)
            self.status.note(attempt, answer, now)
            self.engine.answered(attempt, answer, now)
            if isinstance(attempt, MetadataAttempt) and self._answers:
                # A thousand deliveries may have ended, in tens of milliseconds: what is left waits for the next turn.
                asyncio.get_running_loop().call_soon(self._take_answers)
                break
        for following in self.engine.start(now):
            self.http.start(following)
        # The settlements, and the rest of an engine turn, wait for the answers of the next millisecond.
        self._set_timer(now.monotonic, now.monotonic)
