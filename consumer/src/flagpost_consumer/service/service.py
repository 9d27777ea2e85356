"""One service: builds the parts, connects them, and runs until it is stopped.

In: settings. Out: an exit code. Only this module knows all the parts. Everything runs on the event loop, except the
threads that own Kafka's clients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

import structlog

from flagpost_consumer.adapters.admin import AdminHttp, AdminSources
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.metrics import Metrics
from flagpost_consumer.core.books.deliveries import Settled
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.planning.quarantine import Suspects
from flagpost_consumer.service.chores import Chores
from flagpost_consumer.service.commits import Commits
from flagpost_consumer.service.defects import Defects
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.garbage import calm_collection
from flagpost_consumer.service.kafka_calls import KafkaCalls
from flagpost_consumer.service.life import Life
from flagpost_consumer.service.log import Summary
from flagpost_consumer.service.probes import Probes
from flagpost_consumer.service.releases import Releases
from flagpost_consumer.service.stalls import Stalls
from flagpost_consumer.service.stopping import Stopping
from flagpost_consumer.service.threads import Threads, topics_of
from flagpost_consumer.service.topic_changes import TopicChanges
from flagpost_consumer.settings import Settings, keyed_policy

log = structlog.get_logger(__name__)


class Service:
    """One consumer process, or its successor in the same process after a defect."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_settled: Callable[[Settled], None] | None = None,
        announce: bool = True,
        suspects: Suspects | None = None,
    ) -> None:
        """`on_settled` is called with every delivery whose ending counts; `announce` prints the admin address on
        stderr.

        `suspects`: records at which earlier services of this process failed.
        """
        self._settings = settings
        self._announce = announce
        suspects = Suspects() if suspects is None else suspects
        self.stopping = Stopping()
        self.defects = Defects(suspects, self.stopping)
        self.engine = Engine(keyed_policy(settings), Random().random, suspects)  # noqa: S311 - no secret
        self.metrics = _metrics(settings, self.engine)
        self.loop = EngineLoop(settings, self.engine, self.metrics, self.defects, self.stopping, on_settled)
        writing, decoding = self.loop.writing, self.loop.decoding
        self.stalls = Stalls(self.engine, decoding, writing.dead_letters, writing.ledger)
        self.commits = Commits(self.engine, settings.kafka.session_timeout_seconds, self.loop.commit)
        self.calls = KafkaCalls(
            self.loop, self.commits, self.stalls, self.stopping, settings.pendo.request_timeout_seconds
        )
        self.topics = TopicChanges(self.loop, self.commits, settings.kafka)
        self.releases = Releases(self.loop, self.calls, self.commits, self.stalls, self.topics)
        drain_seconds = settings.delivery.drain_seconds
        self.life = Life(self.loop, self.stopping, drain_seconds)
        self._summary = Summary(self.engine)
        self.chores = Chores(self.loop, self.commits, settings.pendo, self._summary, self.stopping)
        self.probes = Probes(self.loop, settings.pendo.metadata_timeout_seconds)
        observed = self.metrics.observed
        observed.registry_waits, observed.stalls = decoding.waits, self.stalls.of_now
        observed.oldest_attempt_seconds = lambda: self.loop.http.oldest_attempt_seconds
        self._admin = AdminHttp(
            settings.admin.host,
            settings.admin.port,
            AdminSources(
                self.probes.live,
                self.probes.ready,
                lambda: self.loop.status.document(self.loop.paused),
                self.metrics.registry,
            ),
        )
        self.admin_url = ""

    @property
    def may_begin_anew(self) -> bool:
        """Whether the engine has failed at a known record, so that another service may go on."""
        return self.defects.may_begin_anew

    async def run(self) -> int:
        """Serve until `stop` is called; returns the exit code of docs/contract.md#exit-codes."""
        calm_collection()
        if not await self._serve_admin():
            return 1
        self.loop.http.open()
        await self.chores.prepare()
        threads = Threads(self._settings, self.loop, self.calls, self.releases, self.topics)
        threads.start()
        chores = self.chores.start()
        try:
            return await self.life.run(threads.intake)
        finally:
            for chore in chores:
                chore.cancel()
            self._summary.say()
            threads.stop()
            self.loop.decoding.stop()
            self.stopping.ended = True
            await self.loop.close()
            await threads.join()
            await self._admin.stop()

    async def _serve_admin(self) -> bool:
        try:
            self.admin_url = await self._admin.start()
        except OSError as error:
            admin = self._settings.admin
            log.error(  # noqa: TRY400 - a traceback tells an operator nothing here
                "cannot serve probes and metrics: set admin.host and admin.port",
                host=admin.host,
                port=admin.port,
                reason=error.strerror,
            )
            return False
        if self._announce:
            print(f"admin {self.admin_url}", file=sys.stderr, flush=True)  # noqa: T201 - docs/contract.md#settings
        return True

    def stop(self) -> None:
        """Drain and end; called a second time, end at once."""
        self.stopping.request()


def _metrics(settings: Settings, engine: Engine) -> Metrics:
    return Metrics(
        engine,
        clock,
        topic=settings.kafka.topic,
        topics=topics_of(settings.kafka),
        flags=settings.metrics.flags,
        splits=settings.metrics.splits,
    )
