"""The one thread that owns the Kafka consumer.

In: from the event loop commits, where to begin with each partition, and whether to pause; assignments and messages
from Kafka. Out: calls on the event loop (`intake_handler`), in order. A partition is read once the loop releases it.

confluent-kafka serializes all calls on a consumer, so a second thread would wait for the first one's polls; this
thread polls briefly and runs what the loop asks for in between. Its parts: `owned_partitions` knows what is read and
paused, `message_reader` reads, `offset_commits` commits, `rebalance_callbacks` answers the group, `lag_reports` tells
how far behind we are, and `client_health` says when a new client has to join the group in place of this one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import Consumer, Message

from flagpost_consumer.adapters.kafka.client_health import ClientHealth
from flagpost_consumer.adapters.kafka.group_errors import GroupErrors
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.kafka.lag_reports import LagReports
from flagpost_consumer.adapters.kafka.message_reader import MessageReader
from flagpost_consumer.adapters.kafka.offset_commits import OffsetCommits
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.kafka.rebalance_callbacks import RebalanceCallbacks
from flagpost_consumer.adapters.kafka.stand_in import StandIn
from flagpost_consumer.adapters.kafka.topic_lookup import TopicLookup
from flagpost_consumer.adapters.kafka.unreadable_batches import UnreadableBatches
from flagpost_consumer.core.books.deliveries import Position
from flagpost_kafka import reach
from flagpost_settings.logs import kafka_logger

SESSION_SECONDS = 45.0
"""The default of `kafka.session_timeout_seconds`."""
TOPIC_WAIT_SECONDS = 1.0
TOPIC_CLIENT_SECONDS = 30.0
"""How long one client looks for the topic before the next one does: it may have lost its brokers
(`flagpost_kafka.reach`).
"""


class KafkaIntake:
    """Reads the events topic as a member of the group."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
        stand_in_config: Mapping[str, Any] | None = None,
        session_seconds: float = SESSION_SECONDS,
    ) -> None:
        """`stand_in_config`: properties of the consumer that reads the partitions that stay during a hand-over; it
        belongs to no group. Without it these partitions wait. `session_seconds`: the group gives a member's
        partitions to others after this long without word of it.
        """
        self._config = dict(config)
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._commands: SimpleQueue[Callable[[Consumer], None]] = SimpleQueue()
        self._stop = threading.Event()
        self._lookup = TopicLookup(topic, handler, loop)
        self._health = ClientHealth(config, topic, session_seconds, self._lookup)
        errors = GroupErrors(topic, str(config["group.id"]), self._health.replacement)
        self._partitions = OwnedPartitions(topic, UnreadableBatches(topic))
        self._reader = MessageReader(topic, handler, loop, self._partitions, errors)
        self._commits = OffsetCommits(topic, handler, loop, self._partitions, self._health.group, errors)
        self._lag = LagReports(topic, handler, loop, self._partitions, self._health.replacement)
        stand_in = None
        if stand_in_config is not None:
            stand_in = StandIn(stand_in_config, self._health.receive_limit, self._partitions, self._go_round)
        self._rebalances = RebalanceCallbacks(
            handler, loop, self._partitions, self._commits, self._lookup, stand_in, self._stop
        )
        self._thread = threading.Thread(target=self._run, name="flagpost-kafka", daemon=True)
        self.finished: Future[None] = Future()
        """Done when the thread has ended; holds the exception if it failed."""
        self.beat_at = time.monotonic()
        """When the thread last completed a round."""

    # From the loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def joined(self) -> bool:
        """Whether the group has given this client an assignment, even an empty one."""
        return self._rebalances.joined

    @property
    def ends_wanted(self) -> frozenset[int]:
        """Partitions that are ours and whose end Kafka's client may not know."""
        return self._lag.ends_wanted

    def pause(self, paused: bool, partitions: Collection[int] = ()) -> None:
        """Say whether messages are wanted; those of the named partitions are not, whatever `paused` says.

        Each call replaces the one before.
        """
        self._partitions.want_paused(paused, partitions)

    def release(self, partition: int, start: Start, assignment: int) -> None:
        """Read a partition from `start`, if it is still ours by this assignment."""
        self._commands.put(lambda consumer: self._release(consumer, partition, start, assignment))

    def begin_anew(self) -> None:
        """The topic is a new one: read nothing more of the old one, and join the group again with another client.

        This client would ignore a leader whose epoch is below that of the old topic's.
        """
        self._commands.put(self._leave_old_topic)

    def know_ids(self, topic_id: str | None, ledger_id: str | None) -> None:
        """Note the ids of the topics. A new id of an events topic that had one comes through `begin_anew`."""
        self._commands.put(lambda _: self._partitions.know_ids(topic_id, ledger_id))

    def know_ends(self, ends: Mapping[int, int]) -> None:
        """Note where some of the partitions in `ends_wanted` end now, as another client was told."""
        told_at = time.monotonic()
        told = {number: (end, told_at) for number, end in ends.items()}
        self._commands.put(lambda _: self._partitions.told_ends.update(told))

    def is_fresh(self, message: Message) -> bool:
        """Whether a message was read as it was written: after its partition's end had been reached, and without
        a pause since. False if the partition is no longer ours.
        """
        return self._partitions.is_fresh(message)

    def commit(self, positions: Mapping[int, Position]) -> None:
        """Commit positions of the partitions that are still ours by then; `on_commit_ended` tells the result.

        One at a time: call it again only after the result.
        """
        self._commands.put(lambda consumer: self._commits.begin(consumer, positions))

    def stop(self) -> None:
        """Leave the group and end the thread; `finished` tells when. Revocation callbacks still come."""
        self._stop.set()

    # The thread

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._be_member()
            while not self._stop.is_set():
                self._forget_client()
                self._be_member()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the thread
            failure = error
        failure = self._rebalances.failure or failure
        if failure is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(failure)

    def _be_member(self) -> None:
        """Be a member of the group with one client, until it is to be replaced or we are stopped."""
        config = self._health.receive_limit.within(self._config)
        gone = threading.Event()

        def unless_gone(callback: Callable[..., None]) -> Callable[..., None]:
            return lambda *given: None if gone.is_set() else callback(*given)

        callbacks = {
            "on_commit": unless_gone(self._commits.on_commit),
            "error_cb": unless_gone(self._health.hear),
        }
        consumer = Consumer({**config, **callbacks}, logger=kafka_logger())
        is_member = False
        try:
            if self._await_topic(consumer):
                self._rebalances.subscribe(consumer, self._topic, unless_gone)
                is_member = True
                self._consume(consumer)
        finally:
            self._rebalances.leaving = True
            # Partitions that are owned are handed over: their callbacks are called in here. If the group is silent,
            # nothing can be, and to end the client may take minutes (`flagpost_kafka.reach`).
            waits = not self._health.group_is_silent and (is_member or self._stop.is_set())
            if not waits:
                gone.set()
            reach.close(consumer, waits=waits)

    def _forget_client(self) -> None:
        """Forget what the client knew that has just left."""
        if left := sorted(self._partitions.all):  # if the client was not even told that they are revoked
            self._loop.call_soon_threadsafe(self._handler.on_lost, left)
        for part in (
            self._partitions,
            self._lag,
            self._reader,
            self._commits,
            self._rebalances,
            self._health,
        ):
            part.forget_client()

    def _await_topic(self, consumer: Consumer) -> bool:
        """Wait until Kafka answers and the topic is there; False when stopped, or if another client must try."""
        began = time.monotonic()
        while not self._stop.is_set() and time.monotonic() - began < TOPIC_CLIENT_SECONDS:
            self.beat_at = time.monotonic()
            if self._health.finds_topic(consumer):
                return True
            self._stop.wait(TOPIC_WAIT_SECONDS)
        return False

    def _consume(self, consumer: Consumer) -> None:
        while not self._stop.is_set() and not self._health.is_replacement_due():
            self._go_round(consumer, consumer)
            self._lookup.count_if_due(consumer)
            self._health.look(consumer, owns=bool(self._partitions.readings))
            self._lag.report_if_due(consumer)
        self._run_commands(consumer)

    def _go_round(self, member: Consumer, reader: Consumer) -> None:
        """Do what the loop asks of the group's member, and read once, with the member or its stand-in."""
        self._run_commands(member)
        self.beat_at = time.monotonic()
        self._reader.read_once(reader)

    def _run_commands(self, consumer: Consumer) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command(consumer)

    def _release(self, consumer: Consumer, number: int, start: Start, assignment: int) -> None:
        if not self._partitions.release(consumer, number, start, assignment):
            self.release(number, start, assignment)

    def _leave_old_topic(self, consumer: Consumer) -> None:
        """Commit nothing more that was read of the old topic; `close` hands over what is in progress."""
        self._partitions.set_aside(consumer, self._partitions.all)
        self._health.replacement.ask("the topic was created again")
