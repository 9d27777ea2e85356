"""The service: builds the parts, joins them to the engine, and runs until it is stopped.

In: settings. Out: an exit code. Nothing else knows all the parts. Everything here runs on the event loop, but
for the Kafka consumer's own thread.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import count, repeat
from random import Random
from traceback import format_tb
from typing import Any, TypeVar, cast

import structlog
from confluent_kafka import KafkaException, Message

from flagpost_consumer.adapters.admin_http import AdminHttp, AdminSources, Health
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.dead_letter_writer import DeadLetterWriter
from flagpost_consumer.adapters.decoding import Decoding
from flagpost_consumer.adapters.kafka_config import consumer_config, producer_config, stand_in_config
from flagpost_consumer.adapters.kafka_intake import KafkaIntake, Lag
from flagpost_consumer.adapters.ledger_restore import LedgerRestore, Restored
from flagpost_consumer.adapters.ledger_writer import LedgerWriter
from flagpost_consumer.adapters.metrics import Metrics
from flagpost_consumer.adapters.partition_reading import Start
from flagpost_consumer.adapters.pendo_fields import TARGETS, read_fields
from flagpost_consumer.adapters.pendo_http import LATE_SECONDS, PendoHttp, pendo_address
from flagpost_consumer.adapters.schema_registry import SchemaRegistry
from flagpost_consumer.adapters.schema_source import RegistryRequests
from flagpost_consumer.adapters.splits_reader import SplitsReader
from flagpost_consumer.adapters.suppressions_reader import SuppressionsReader
from flagpost_consumer.adapters.topic_ids import TopicIds
from flagpost_consumer.adapters.topic_watch import TopicWatch
from flagpost_consumer.commits import Commits
from flagpost_consumer.core.appetite import PATIENCE_SECONDS
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.moments import earliest
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.core.plan import FieldCatalog
from flagpost_consumer.core.quarantine import Suspects, fingerprint
from flagpost_consumer.core.records import (
    Actions,
    Attempt,
    EndpointName,
    Gap,
    Partition,
    Position,
    Record,
    Settlement,
)
from flagpost_consumer.core.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.core.verdict import Answer
from flagpost_consumer.garbage import calm_collection, collect_if_quiet
from flagpost_consumer.service_log import SUMMARY_SECONDS, PendoStates, Summary, say_start
from flagpost_consumer.settings import KafkaSettings, Settings, SettingsError, keyed_policy, ledger_ids
from flagpost_consumer.stalls import Stalls
from flagpost_consumer.status import Status
from flagpost_settings.logs import say_loop_error

log = structlog.get_logger(__name__)

COMMIT_SECONDS = 1.0
SECRETS_SECONDS = 1.0
FIELDS_SECONDS = 300.0
FIRST_FIELDS_SECONDS = 5.0
FIELDS_RETRY_SECONDS = 10.0
"""After how long Pendo is asked for its fields again that it has not told yet; each time twice as long."""
LEAVE_SECONDS = 10.0
"""How long the last commit and the leaving of the group may take."""
LOOP_SECONDS = 1.0
SERVE_SECONDS = 5.0
LIVE_SECONDS = 60.0
"""The Kafka thread may stand still this long, in a hand-over or a slow broker, before it counts as dead."""
MAX_SERVICES = 20
"""How many services one process runs, one after another, if their engines fail."""
GARBAGE_SECONDS = 10.0
TIMER_SLACK_SECONDS = 0.001
"""uvloop's timers have a resolution of 1 ms: one that fires early would only be set again."""


Method = TypeVar("Method", bound=Callable[..., None])


def _vital(method: Method) -> Method:
    """A step of the engine: if it raises, the engine's state is in doubt, and nothing more is asked of it."""

    @wraps(method)
    def guarded(self: Service, *arguments: Any) -> None:  # noqa: ANN401 - the method's own
        if self._failed:
            return
        try:
            method(self, *arguments)
        except Exception as error:  # noqa: BLE001 - told, and then the end
            self._fail(error)

    return cast("Method", guarded)


class Service:
    """One consumer process."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_settled: Callable[[Settlement], None] | None = None,
        announce: bool = True,
        suspects: Suspects | None = None,
    ) -> None:
        """`on_settled` hears of every settlement that counts; `announce` tells the admin address on stderr.

        `suspects`: what services of this process have failed at before.
        """
        self._settings = settings
        self._announce = announce
        self._on_settled = on_settled
        self._suspects = Suspects() if suspects is None else suspects
        self.may_begin_anew = False
        """Whether the engine has failed, and it is known at which record: another service may go on."""
        jitter = Random().random  # noqa: S311 - no secret
        self.engine = Engine(keyed_policy(settings), jitter, self._suspects)
        self.metrics = Metrics(
            self.engine,
            clock,
            topic=settings.kafka.topic,
            topics=_topics_of(settings.kafka),
            flags=settings.metrics.flags,
            splits=settings.metrics.splits,
        )
        self._registry: SchemaRegistry | None = None
        self._decoding = Decoding(
            self._schema_requests(),
            self._receive,
            max_event_bytes=settings.kafka.max_event_bytes,
            unknown_seconds=settings.kafka.schema_registry.unknown_seconds,
            on_change=self._wake,
            on_quarantined=self._count_quarantined,
            is_full=lambda: self.engine.is_full,
            is_wanted=self.engine.wants_records,
            is_settled=self.engine.is_settled_undecoded,
            is_fresh=lambda message: self._intake is not None and self._intake.is_fresh(message),
        )
        self.metrics.observed.registry_waits = self._decoding.waits
        self._states = PendoStates(self.engine)
        self._summary = Summary(self.engine)
        self._status = Status(
            self.engine, self.metrics, self._states, settings.kafka.group_id, clock().wall_ms
        )
        self._http = PendoHttp(pendo_address(settings), self._answered, settings.pendo.outbound)
        self.metrics.observed.oldest_attempt_seconds = lambda: self._http.oldest_attempt_seconds
        self._dead_letters = DeadLetterWriter(
            producer_config(settings.kafka),
            settings.kafka.dead_letter_topic,
            settings.kafka.topic,
            self._write_to_ledger,
        )
        self._ledger = LedgerWriter(
            producer_config(settings.kafka),
            settings.kafka.ledger_topic,
            settings.kafka.group_id,
            self._acknowledge,
            write_at=settings.pendo.max_connections,
            ids=ledger_ids(settings),
        )
        self._stalls = Stalls(self.engine, self._decoding, self._dead_letters, self._ledger)
        self.metrics.observed.stalls = self._stalls.of_now
        self._restore: LedgerRestore | None = None
        self._suppressions: SuppressionsReader | None = None
        self._unreleased: list[Restored] | None = []
        """Partitions whose records wait until it is known who is suppressed; None: it is."""
        self.engine.follow_suppressions(followed=False)
        self._topic_ids: TopicIds | None = None
        self._replaced_by: dict[str, str] = {}
        """Topics of which it is told that they were made anew, and the id of the newest."""
        self._assignment_of: dict[Partition, int] = {}
        self._admin = AdminHttp(
            settings.admin.host,
            settings.admin.port,
            AdminSources(
                self._live, self._ready, lambda: self._status.document(self._paused), self.metrics.registry
            ),
        )
        self._intake: KafkaIntake | None = None
        self._answers: deque[tuple[Attempt, Answer, float]] = deque()
        """Those that have come since the engine was last told of any."""
        self._pump_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._progress, self._stop_requested, self._abort_requested = (asyncio.Event() for _ in range(3))
        self._paused = False
        self._drained = False
        self._abandoned_while_stopping = 0
        self._failed = False
        self._ended = False
        """Whether nothing is committed or written any more: answers come too late to be anybody's."""
        self._overdue_since: float | None = None
        self._commits = Commits(self.engine, settings.kafka.session_timeout_seconds, self._send_commit)
        self._fields: FieldCatalog = {}
        self._loop_measured_at = time.monotonic()
        self.admin_url = ""

    # The run

    async def run(self) -> int:
        """Serve until `stop` is called; gives the exit code of CONTRACT section 7."""
        calm_collection()
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
            return 1
        if self._announce:
            print(f"admin {self.admin_url}", file=sys.stderr, flush=True)  # noqa: T201 - CONTRACT section 5
        self._http.open()
        self._read_secrets()
        await self._read_fields_first()
        loop = asyncio.get_running_loop()
        kafka = self._settings.kafka
        self._topic_ids = TopicIds(
            kafka.client_properties(),
            _topics_of(kafka),
            lambda topic, _, before: loop.call_soon_threadsafe(self.on_topic_id, topic, before),
        )
        self._restore = LedgerRestore(kafka, self._settings.dedupe, self, loop, self._topic_ids)
        self._intake = KafkaIntake(
            consumer_config(kafka),
            kafka.topic,
            self,
            loop,
            stand_in_config(kafka),
            kafka.session_timeout_seconds,
        )
        self._suppressions = SuppressionsReader(kafka, self, loop)
        splits = self._follow_splits(loop)
        watch = TopicWatch(kafka.client_properties(), kafka.topic, self._topic_ids, self._intake)
        self._suppressions.start()
        self._intake.start()
        watch.start()
        self._loop_measured_at = time.monotonic()
        chores = [
            asyncio.create_task(self._again_and_again(pauses, chore))
            for pauses, chore in (
                (repeat(min(COMMIT_SECONDS, self._commits.proof_seconds)), self._commit_if_due),
                (repeat(SECRETS_SECONDS), self._read_secrets),
                (self._field_pauses(), self._read_fields),
                (repeat(LOOP_SECONDS), self._measure_loop),
                (repeat(LOOP_SECONDS), self._wake),  # a wake-up that got lost costs a second, not the rest
                (repeat(LOOP_SECONDS), self._http.watch),
                (repeat(SERVE_SECONDS), self._dead_letters.serve),
                (repeat(SERVE_SECONDS), self._ledger.serve),
                (repeat(SUMMARY_SECONDS), self._summary.say),
                (repeat(GARBAGE_SECONDS), self._collect_garbage),
            )
        ]
        try:
            return await self._serve(self._intake)
        finally:
            for chore in chores:
                chore.cancel()
            self._summary.say()
            watch.stop()
            self._restore.cancel()
            self._suppressions.stop()
            if splits is not None:
                splits.stop()
            self._decoding.stop()
            self._ended = True
            await self._http.close()
            if self._registry is not None:
                await self._registry.close()
            await asyncio.to_thread(self._suppressions.join)
            if splits is not None:
                await asyncio.to_thread(splits.join)
            await self._admin.stop()

    def _follow_splits(self, loop: asyncio.AbstractEventLoop) -> SplitsReader | None:
        """Learn how publishers say that visitors of metrics.flags are to be split, where they report it."""
        kafka = self._settings.kafka
        if kafka.impressions_topic is None or not self._settings.metrics.flags:
            return None
        reader = SplitsReader(kafka, kafka.impressions_topic, loop, self.metrics.experiments.tell)
        reader.start()
        return reader

    def stop(self) -> None:
        """Drain and end; asked a second time, end at once."""
        if self._stop_requested.is_set():
            self._abort()
        self._stop_requested.set()

    def _abort(self) -> None:
        self._abort_requested.set()
        self._stop_requested.set()
        self._progress.set()

    def _has_failed(self) -> bool:
        return self._failed

    def _fail(self, error: Exception) -> None:
        """A defect of ours has come to light: what is not acknowledged is for whoever comes next."""
        log.error(
            "the engine has failed; it is not used again, and commits nothing more",
            defect=fingerprint(error),  # its message may hold an id
            stack="".join(format_tb(error.__traceback__)),
        )
        self._failed = True
        self.may_begin_anew = self._suspects.blame(error) and not self._stop_requested.is_set()
        self._abort()

    async def _serve(self, intake: KafkaIntake) -> int:
        ended = asyncio.ensure_future(asyncio.wrap_future(intake.finished))
        await _either(ended, self._stop_requested)
        if self._has_failed():
            return await self._leave_after_failure(intake, ended)
        if ended.done():
            return _kafka_failed(ended.exception())
        clean = await self._drain()
        if self._has_failed():
            return await self._leave_after_failure(intake, ended)
        intake.commit(self.engine.committable())
        intake.stop()
        await _either(ended, self._abort_requested, LEAVE_SECONDS)
        if not ended.done():
            log.error("left without a last commit: Kafka did not answer, or a second signal came")
            return 1
        if (error := ended.exception()) is not None:
            return _kafka_failed(error)
        log.info("stopped", clean=clean)
        return 0 if clean else 1

    async def _leave_after_failure(self, intake: KafkaIntake, ended: asyncio.Future[None]) -> int:
        """Leave the group without a commit, so that others need not wait for the session to end."""
        intake.stop()
        await asyncio.wait([ended], timeout=LEAVE_SECONDS)
        return 1

    async def _drain(self) -> bool:
        """Let what is in flight end; whether it did in time."""
        log.info("draining", pending=self.engine.pending_records)
        self._begin_drain()
        self._wake()
        limit = self._settings.delivery.drain_seconds
        await self._until(lambda: self.engine.is_drained or self._abort_requested.is_set(), limit)
        self._drained = True
        self._progress.set()
        return self.engine.is_quiet() and not self._abandoned_while_stopping

    @_vital
    def _begin_drain(self) -> None:
        self.engine.drain(clock())

    async def _until(self, reached: Callable[[], bool], limit_seconds: float) -> None:
        """Wait for the engine to come to a point, or for a time."""
        try:
            async with asyncio.timeout(limit_seconds):
                while not reached():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning("waited in vain for requests in flight", seconds=limit_seconds)

    # The engine and the world

    def _wake(self) -> None:
        """Let the engine act soon, once however often it is asked for."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    @_vital
    def _pump(self) -> None:
        self._pump_scheduled = False
        now = clock()
        actions = self.engine.poll(now)
        for attempt in actions.attempts:
            self._http.start(attempt)
        self._write(actions.settlements)
        wake_at = actions.wake_at
        if self._decoding.is_behind:
            (self._decoding.wait if actions.intake_paused else self._decoding.go_on)()
            wake_at = earliest(wake_at, now.monotonic + PATIENCE_SECONDS)
        self._pause(actions)
        self._set_timer(wake_at, now.monotonic)
        self._note_overdue(actions.wake_at, now.monotonic)
        self._states.say()
        self._progress.set()

    def _write(self, settlements: list[Settlement]) -> None:
        """Make settlements last: in the ledger, and before it, where they are dead letters, as these."""
        for settlement in settlements:
            if settlement.ending.outcome is Outcome.DEAD_LETTERED:
                self._dead_letters.write(settlement)
            else:
                self._ledger.write(settlement)

    @_vital
    def _write_to_ledger(self, settlement: Settlement) -> None:
        self._ledger.write(settlement)

    @_vital
    def _acknowledge(self, settlements: Sequence[Settlement], ledger_offset: int) -> None:
        self.engine.acknowledged(settlements, ledger_offset)
        for settlement in settlements:
            self.metrics.settled(settlement)
            if self._on_settled is not None:
                self._on_settled(settlement)
        self._wake()

    def _pause(self, actions: Actions) -> None:
        paused = actions.intake_paused or (self._decoding.is_behind and self.engine.is_full)
        if paused != self._paused:
            self._paused = paused
            log.info(
                "intake paused" if self._paused else "intake resumed", pending=self.engine.pending_records
            )
        if self._intake is not None:
            self._intake.pause(self._paused, actions.partitions_paused | self._decoding.full_partitions)

    def _set_timer(self, wake_at: float | None, now: float) -> None:
        """See that the engine acts again at a moment; a timer that is there already may come earlier, for nothing."""
        if wake_at is None or (self._timer is not None and self._timer_at <= wake_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake_at
        delay = max(0.0, wake_at - now) + TIMER_SLACK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(delay, self._timer_ended)

    def _timer_ended(self) -> None:
        self._timer = None
        self._wake()

    def _note_overdue(self, wake_at: float | None, now: float) -> None:
        """What is due although the engine has just acted is not going to start: a defect, if it goes on."""
        if wake_at is None or wake_at > now:
            self._overdue_since = None
        elif self._overdue_since is None:
            self._overdue_since = now

    def _answered(self, attempt: Attempt, answer: Answer, seconds: float) -> None:
        """An answer came; it is taken in once the loop has read what came on other connections (decision 0036)."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._take_answers)
        self._answers.append((attempt, answer, seconds))

    @_vital
    def _take_answers(self) -> None:
        if self._ended:
            return
        now = clock()
        while self._answers:
            attempt, answer, seconds = self._answers.popleft()
            self.metrics.request_answered(attempt, answer, seconds)
            self._status.note(attempt, answer, now)
            self.engine.answered(attempt, answer, now)
            if attempt.batch is not None and self._answers:
                # A thousand deliveries may have ended, in tens of milliseconds: what is left has the next turn.
                asyncio.get_running_loop().call_soon(self._take_answers)
                break
        for following in self.engine.start(now):
            self._http.start(following)
        # The settlements, and what else a turn of the engine costs, wait for the answers of the next millisecond.
        self._set_timer(now.monotonic, now.monotonic)

    @_vital
    def _receive(self, records: list[Record]) -> None:
        self.engine.receive(records, clock())
        self.metrics.received(records)
        self._wake()

    def _count_quarantined(self) -> None:
        self.metrics.observed.quarantined += 1

    def _schema_requests(self) -> RegistryRequests | None:
        registry = self._settings.kafka.schema_registry
        if registry.url is None:
            return None
        self._registry = SchemaRegistry(registry.url, registry)
        return RegistryRequests(self._registry, self._fail)

    # What the Kafka thread brings

    @_vital
    def on_messages(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Messages came."""
        self._decoding.take(messages, done)

    @_vital
    def on_assigned(self, partitions: list[int], partition_count: int, assignment: int) -> None:
        """Partitions are ours from now on; the ledger is read before their records are."""
        self.metrics.observed.rebalances["assigned"] += 1
        log.info("assigned", partitions=partitions)
        assigned = self.engine.assign(partitions, partition_count, clock())
        self._assignment_of.update(dict.fromkeys(assigned, assignment))
        if self._restore is not None:
            self._restore.start(assigned)
        self._wake()

    def on_partition_count(self, count: int) -> None:
        """The topic has this many partitions."""
        self.engine.assign([], count, clock())
        self._wake()

    @_vital
    def on_restored(self, restored: Restored) -> None:
        """The ledger of a partition has been read: its records may come, once it is known who is suppressed."""
        if self._unreleased is None:
            self._release(restored)
        else:
            self._unreleased.append(restored)

    def _release(self, restored: Restored) -> None:
        partition = restored.partition
        if not self.engine.is_current(partition):
            return
        self.engine.restore(partition, restored.restoration)
        partition.topic_id = restored.start.topic_id
        self.metrics.observed.restore_seconds = restored.seconds
        if restored.gap is not None:
            self._lose(partition, restored.gap)
        if self._intake is not None:
            self._intake.release(partition.number, restored.start, self._assignment_of[partition])
        self._commits.now(clock().monotonic)
        if all(self.engine.is_restored(number) for number in self.engine.assigned):
            log.info("restored", partitions=len(self.engine.assigned), seconds=round(restored.seconds, 3))
        self._wake()

    # What the suppressions topic tells

    @_vital
    def on_suppressions_known(self, known: Suppressions) -> None:
        """It is known who is suppressed: what has been restored meanwhile may begin."""
        self.engine.know_suppressions(known)
        unreleased, self._unreleased = self._unreleased, None
        for restored in unreleased or ():
            self._release(restored)
        self._wake()

    @_vital
    def on_suppressions(self, suppressions: list[Suppression]) -> None:
        """Visitors are suppressed, or are so no longer."""
        try:
            self.engine.suppress(suppressions)
        except TooManySuppressions as error:
            self.on_suppressions_followed(str(error))
            if self._suppressions is not None:
                self._suppressions.read_over()
        self._wake()

    @_vital
    def on_suppressions_followed(self, trouble: str) -> None:
        """Whether it would be heard if another visitor were suppressed."""
        self._stalls.suppressions = trouble
        self.engine.follow_suppressions(followed=self._unreleased is None and not trouble)
        self._wake()

    def on_held(self, partition: Partition, reason: str) -> None:
        """A partition cannot be consumed until somebody sees to it."""
        if self.engine.is_current(partition):
            log.error("a partition is not consumed", partition=partition.number, reason=reason)
            self._stalls.held[partition.number] = reason

    def on_damaged(self) -> None:
        """A ledger record was passed over."""
        self.metrics.observed.ledger_damaged += 1

    @_vital
    def on_topic_id(self, topic: str, before: str | None) -> None:
        """Kafka has told an id of a topic, which had another one before if it was made anew."""
        if self._intake is None or self._topic_ids is None:
            return
        kafka = self._settings.kafka
        topic_id, ledger_id = self._topic_ids.get(kafka.topic), self._topic_ids.get(kafka.ledger_topic)
        if before is not None:
            self._made_anew(topic)
        for number in self.engine.assigned:
            current = self.engine.current(number)
            if current is not None and current.topic_id is None:
                current.topic_id = topic_id
        self._intake.know_ids(topic_id, ledger_id)
        self._commits.now(clock().monotonic)

    def _made_anew(self, topic: str) -> None:
        kafka = self._settings.kafka
        if self._topic_ids is None or self._intake is None:
            return
        self.on_other_topic(topic, self._topic_ids.get(topic))
        if topic == kafka.topic:
            self._intake.begin_anew()
        elif topic == kafka.suppressions_topic:
            if self._suppressions is not None:
                self._suppressions.made_anew()
        elif topic == kafka.ledger_topic:
            self.engine.ledger_replaced()
            self._ledger.made_anew()
        else:
            self._dead_letters.made_anew()

    def on_other_topic(self, topic: str, topic_id: str | None) -> None:
        """A topic is not the one that it was: told by its new id, or by a commit that was made on another."""
        if topic_id is None or self._replaced_by.get(topic) != topic_id:
            log.error("a topic was made anew under its old name: it is read from its beginning", topic=topic)
            self.metrics.observed.topics_replaced[topic] += 1
        if topic_id is not None:
            self._replaced_by[topic] = topic_id

    def on_log_back(self, partition: Partition, offset: int) -> None:
        """The log of a partition has gone back to an offset; it is read from there."""
        log.error("a log has gone back: it is read from there", partition=partition.number, offset=offset)
        self.metrics.observed.topics_replaced[self._settings.kafka.topic] += 1

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        """What is in these partitions is new: begin with them as if they were lost and assigned anew.

        What is in flight is waited for as in a hand-over, so that the ledger has what comes of it.
        """
        try:
            await self._begin_anew(partitions, assignment, went_back)
        except Exception as error:  # noqa: BLE001 - told, and then the end
            self._fail(error)

    async def _begin_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        await self._let_go(partitions)
        # Meanwhile the group may have taken one away, or given it anew: that counts, and not what was before.
        left = [number for number in partitions if self._is_older(number, assignment)]
        abandoned = self.engine.forget(left, clock())
        self._forget(left)
        log.warning("read anew", partitions=left, abandoned_requests=abandoned)
        assigned = self.engine.assign(left, self.engine.partition_count, clock())
        self._assignment_of.update(dict.fromkeys(assigned, assignment))
        if self._restore is not None:
            self._restore.start(assigned, went_back)
        self._wake()

    def _is_older(self, number: int, assignment: int) -> bool:
        """Whether a partition is ours by an assignment before this one."""
        current = self.engine.current(number)
        return current is not None and self._assignment_of.get(current, 0) < assignment

    async def _let_go(self, partitions: list[int]) -> None:
        """Hand back what waits of these partitions, and wait for what is in flight."""
        self._decoding.discard(partitions)
        self.engine.revoke(partitions, clock())
        self._wake()
        limit = self._settings.pendo.request_timeout_seconds + LATE_SECONDS
        await self._until(lambda: self.engine.is_quiet(partitions) or self._drained, limit)

    def on_gap(self, partition: int, gap: Gap) -> None:
        """Offsets are gone that were to be read next; what was read before them is decoded first."""
        current = self.engine.current(partition)
        if current is not None:
            self._decoding.in_turn(partition, lambda: self._lose(current, gap))

    @_vital
    def _lose(self, partition: Partition, gap: Gap) -> None:
        if self.engine.is_current(partition):
            log.error(
                "offsets are lost: Kafka has deleted them, or they cannot be read",
                partition=partition.number,
                from_offset=gap.from_offset,
                to_offset=gap.to_offset,
            )
            self.engine.lose(partition, gap)
            self._ledger.write_gap(partition, gap, lambda: self._gap_written(partition, gap))

    @_vital
    def _gap_written(self, partition: Partition, gap: Gap) -> None:
        self.engine.gap_written(partition, gap)
        self._wake()

    async def on_revoked(self, partitions: list[int]) -> dict[int, Position]:
        """Hand partitions over: what waits at once, what is in flight when it has ended."""
        self.metrics.observed.rebalances["revoked"] += 1
        await self._let_go(partitions)
        offsets = {} if self._failed else self.engine.committable(partitions)
        abandoned = self.engine.forget(partitions, clock())
        if self._stop_requested.is_set():
            self._abandoned_while_stopping += abandoned
        log.info(
            "revoked",
            partitions=partitions,
            committed=[f"{number}/{position.offset}" for number, position in sorted(offsets.items())],
            abandoned_requests=abandoned,
        )
        self._forget(partitions)
        self._wake()
        return offsets

    @_vital
    def on_lost(self, partitions: list[int]) -> None:
        """Partitions are another member's already: nothing of them may be committed."""
        self.metrics.observed.rebalances["lost"] += 1
        self._decoding.discard(partitions)
        abandoned = self.engine.forget(partitions, clock())
        log.warning("lost", partitions=partitions, abandoned_requests=abandoned)
        self._forget(partitions)
        self._wake()

    def on_lag(self, lag: Mapping[int, Lag]) -> None:
        """How far each partition is behind."""
        self.metrics.observed.lag = dict(lag)
        self._stalls.note_lag(lag, paused=self._paused)

    @_vital
    def on_commit_ended(self, began_at: float | None) -> None:
        """A commit proves that the group counts on us; one that failed is made again."""
        self._commits.ended(began_at, clock().monotonic)
        self._wake()

    def _forget(self, partitions: list[int]) -> None:
        """What is known of partitions that are another member's."""
        self.metrics.experiments.forget(partitions)
        if self._restore is not None:
            self._restore.give_up(partitions)
        self._dead_letters.forget(partitions)
        self._ledger.forget(partitions)
        for partition in partitions:
            self.metrics.observed.lag.pop(partition, None)
            self._stalls.held.pop(partition, None)
        self._assignment_of = {p: n for p, n in self._assignment_of.items() if self.engine.is_current(p)}

    # Chores

    async def _again_and_again(
        self, pauses: Iterator[float], chore: Callable[[], Awaitable[None] | None]
    ) -> None:
        """Do something after each pause (seconds); what goes wrong once does not keep it from the next time."""
        for pause in pauses:
            await asyncio.sleep(pause)
            try:
                if (waiting := chore()) is not None:
                    await waiting
            except Exception:
                log.exception("a chore failed; it is done again", chore=chore.__name__)

    def _commit_if_due(self) -> None:
        self._commits.if_due(clock().monotonic)

    def _send_commit(self, positions: Mapping[int, Position]) -> None:
        if self._intake is not None and not self._failed:
            self._intake.commit(positions)

    def _collect_garbage(self) -> None:
        collect_if_quiet(self.engine.fullness)

    def _read_secrets(self) -> None:
        """Use the credentials as their files hold them now; a new one is tried at once."""
        pendo = self._settings.pendo
        sources = {
            EndpointName.TRACK: pendo.track_secret_source,
            EndpointName.METADATA: pendo.integration_key_source,
        }
        for endpoint, source in sources.items():
            try:
                changed = source is not None and self._http.set_secret(endpoint, source.current())
            except SettingsError as error:
                log.warning("a secret cannot be read; its last content is used", reason=str(error))
                continue
            if changed:
                self.engine.secret_changed(endpoint, clock())
                self._wake()

    async def _read_fields(self) -> None:
        if self._http.has_secret(EndpointName.METADATA):
            # A group that cannot be read just now is as it was when it last could be.
            self._fields = {**self._fields, **await read_fields(self._http.get_json)}
            self.engine.know_fields(self._fields)

    async def _read_fields_first(self) -> None:
        """Give Pendo a moment to tell its fields before the first event; else configured names are sent."""
        reading = asyncio.ensure_future(self._read_fields())
        await _either(reading, self._stop_requested, FIRST_FIELDS_SECONDS)
        reading.cancel()

    def _field_pauses(self) -> Iterator[float]:
        """Soon and then less soon, until Pendo has told all its fields once; then as often as they may change."""
        pause = FIELDS_RETRY_SECONDS
        while True:
            told = {target for target, _ in self._fields}
            yield FIELDS_SECONDS if told.issuperset(TARGETS) else pause
            pause = min(2 * pause, FIELDS_SECONDS)

    def _measure_loop(self) -> None:
        """How late this comes, beyond the time it waited for."""
        now = time.monotonic()
        self.metrics.observed.loop_lag_seconds = max(0.0, now - self._loop_measured_at - LOOP_SECONDS)
        self._loop_measured_at = now

    # Admin

    def _live(self) -> Health:
        if self._intake is None:
            return Health(ok=True, detail="starting")
        still = time.monotonic() - self._intake.beat_at
        if still > LIVE_SECONDS:
            return Health(ok=False, detail=f"the Kafka thread has stood still for {still:.0f} s")
        overdue = 0.0 if self._overdue_since is None else clock().monotonic - self._overdue_since
        if overdue > LIVE_SECONDS:
            return Health(ok=False, detail=f"a request has been due for {overdue:.0f} s and does not start")
        forgotten = self._http.oldest_attempt_seconds - self._settings.pendo.metadata_timeout_seconds
        if forgotten > 2 * LIVE_SECONDS:
            return Health(
                ok=False, detail=f"a request has been overdue for {forgotten:.0f} s without an answer"
            )
        return Health(ok=True, detail="live")

    def _ready(self) -> Health:
        if self._intake is None or not self._intake.joined:
            return Health(ok=False, detail="not yet a member of the group")
        is_at_work = any(self.engine.is_restored(number) for number in self.engine.assigned)
        if is_at_work and not self.engine.is_member(clock()):
            return Health(
                ok=False, detail="the group takes no commits: it may have given the partitions away"
            )
        return Health(ok=True, detail="ready")


def _kafka_failed(error: BaseException | None) -> int:
    """Say why the Kafka thread has ended; gives the exit code."""
    reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    log.error("the Kafka thread has failed", kind=type(error).__name__, reason=reason)
    return 1


async def _either(
    ended: asyncio.Future[None], event: asyncio.Event, limit_seconds: float | None = None
) -> None:
    """Wait for whichever comes first, or for a time."""
    waiting = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {ended, waiting}
    await asyncio.wait(both, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _topics_of(kafka: KafkaSettings) -> tuple[str, ...]:
    """The topics that a consumer reads or writes."""
    return kafka.topic, kafka.ledger_topic, kafka.dead_letter_topic, kafka.suppressions_topic


async def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT.

    A service whose engine failed at a record is followed by another in the same process, which knows of the record;
    at the second failure the record is quarantined. After too many the process ends, for its platform to see.
    """
    say_start(settings)
    suspects = Suspects()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(say_loop_error)
    for begun in count(1):
        service = Service(settings, suspects=suspects)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        code = await service.run()
        if not service.may_begin_anew or begun >= MAX_SERVICES:
            return code
        log.warning("a new engine begins where the last one failed", begun=begun)
    raise AssertionError("counting has no end")
