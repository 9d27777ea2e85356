"""The life of a service: it reads until Kafka's thread ends or it is stopped, then it drains and leaves the group.

In: the intake, the request to stop. Out: an exit code.
"""

from __future__ import annotations

import asyncio

import structlog
from confluent_kafka import KafkaException

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.service.defects import vital
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.stopping import Stopping, first_of

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 10.0
"""How long the last commit and leaving the group may take."""


class Life:
    """The life of one service, from its first poll to its last commit."""

    def __init__(self, loop: EngineLoop, stopping: Stopping, drain_seconds: float) -> None:
        self.defects = loop.defects
        self._loop = loop
        self._engine = loop.engine
        self._stopping = stopping
        self._drain_seconds = drain_seconds

    async def run(self, intake: KafkaIntake) -> int:
        """Wait for the end of the intake, or for a stop, and leave the group; returns the exit code."""
        ended = asyncio.ensure_future(asyncio.wrap_future(intake.finished))
        await first_of(ended, self._stopping.requested)
        if self._has_failed():
            return await self._leave_after_failure(intake, ended)
        if ended.done():
            return _kafka_failed(ended.exception())
        clean = await self.drain()
        if self._has_failed():
            return await self._leave_after_failure(intake, ended)
        intake.commit(self._engine.committable())
        intake.stop()
        await first_of(ended, self._stopping.aborted, LEAVE_SECONDS)
        if not ended.done():
            log.error("left without a last commit: Kafka did not answer, or a second signal came")
            return 1
        if (error := ended.exception()) is not None:
            return _kafka_failed(error)
        log.info("stopped", clean=clean)
        return 0 if clean else 1

    def _has_failed(self) -> bool:
        return self.defects.failed

    async def _leave_after_failure(self, intake: KafkaIntake, ended: asyncio.Future[None]) -> int:
        """Leave the group without a commit, so that others need not wait for the session to end."""
        intake.stop()
        await asyncio.wait([ended], timeout=LEAVE_SECONDS)
        return 1

    async def drain(self) -> bool:
        """Let what is in flight end; returns whether it ended in time."""
        log.info("draining", pending=self._engine.pending_records)
        self._begin_drain()
        self._loop.wake()
        await self._stopping.until(
            lambda: self._engine.is_drained or self._stopping.aborted.is_set(),
            self._drain_seconds,
        )
        self._stopping.drain_ended()
        return self._engine.is_quiet() and not self._stopping.abandoned_requests

    @vital
    def _begin_drain(self) -> None:
        self._engine.drain(clock())


def _kafka_failed(error: BaseException | None) -> int:
    """Log why the Kafka thread has ended; returns the exit code."""
    reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    log.error("the Kafka thread has failed", kind=type(error).__name__, reason=reason)
    return 1
