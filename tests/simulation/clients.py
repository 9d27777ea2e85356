"""The clients of confluent-kafka, for the simulated brokers.

In: the calls of `Consumer`, `Producer` and `AdminClient` that the product makes, with its properties.
Out: what librdkafka would return, after the time that it takes. This includes surprises: after a pause it fetches
again, a commit of another member's partition succeeds, poll raises a fatal error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from simulation.broker import Broker, Commit, Entry, Log, Member
from simulation.loop import PROCESS, Process
from simulation.threads import Waiter, scheduler

FETCHED_AT_ONCE = 40
"""How many records of one partition a client fetches ahead."""
FETCH_SECONDS = 0.005
COMMIT_SECONDS = 3.0
"""A commit fails if it has no answer after this long."""
SEND_AGAIN_SECONDS = 0.2

_brokers: list[Broker] = []


def use(new: Broker) -> None:
    """Set the brokers of a run, to which clients connect."""
    _brokers[:] = [new]


def forget() -> None:
    """Let go of the brokers of the last run."""
    _brokers.clear()


def broker() -> Broker:
    """The brokers of the present run."""
    return _brokers[-1]


def here() -> Process:
    """The process that makes the call."""
    process = PROCESS.get()
    assert process is not None, "a client belongs to a process"
    return process


def error_of(code: int, text: str = "", *, fatal: bool = False) -> KafkaError:
    """An error as librdkafka makes it."""
    return KafkaError(code, text or None, fatal)


class _Client:
    """What all clients have in common."""

    def __init__(self) -> None:
        self._broker = broker()
        self.process = here()
        self.lost_brokers = False
        """Whether it never connects again (flagpost_kafka.reach)."""
        self._broker.clients.append(self)

    @property
    def hears(self) -> bool:
        """Whether its requests reach the brokers at present."""
        return not self.lost_brokers and self._broker.hears(self.process)


def ask(client: _Client, seconds: float) -> None:
    """Wait as long as an answer takes. Raises KafkaException if none comes in time."""
    kafka = broker()
    sent = client.hears
    latency = kafka.latency() + kafka.latency()
    scheduler().park(None, min(latency, seconds))
    if not sent or not client.hears or latency > seconds:
        scheduler().park(None, seconds - min(latency, seconds))
        raise KafkaException(error_of(KafkaError._TRANSPORT if not sent else KafkaError._TIMED_OUT))


def describe(topic: str) -> Any:
    """The brokers' metadata of a topic."""
    found = broker().topics.get(topic)
    error = None if found is not None else error_of(KafkaError.UNKNOWN_TOPIC_OR_PART)
    now = broker().loop.now
    partitions = {
        log.number: SimpleNamespace(leader=-1 if now < log.leaderless_until else 1)
        for log in (() if found is None else found.logs)
    }
    return SimpleNamespace(topic=topic, error=error, partitions=partitions)


class SimulatedMessage:
    """`confluent_kafka.Message`."""

    __slots__ = ("_entry", "_error", "_number", "_offset", "_topic")

    def __init__(
        self, topic: str, number: int, offset: int, entry: Entry | None, error: KafkaError | None
    ) -> None:
        self._topic = topic
        self._number = number
        self._offset = offset
        self._entry = entry
        self._error = error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._number

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def key(self) -> bytes | None:
        return None if self._entry is None else self._entry.key

    def value(self) -> bytes | None:
        return None if self._entry is None else self._entry.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self._entry.headers) if self._entry is not None and self._entry.headers else None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_CREATE_TIME, 0 if self._entry is None else self._entry.timestamp_ms

    def leader_epoch(self) -> int | None:
        return None if self._entry is None else self._entry.epoch


class _Fetching:
    """One partition of a consumer."""

    def __init__(self, offset: int, epoch: int | None) -> None:
        self.position = offset
        """The offset that is returned to the caller next."""
        self.fetched = offset
        """The offset that is fetched next."""
        self.epoch = epoch
        self.is_paused = False
        self.eof_at = -1
        self.watermarks = (-1001, -1001)
        self.ready_at = 0.0
        self.checks = epoch is not None
        """Whether to check, before the next fetch, that the log did not go back."""


class SimulatedConsumer(_Client):
    """`confluent_kafka.Consumer`."""

    def __init__(self, config: Mapping[str, Any], logger: object = None) -> None:
        del logger
        super().__init__()
        self.is_kip_848 = config.get("group.protocol") == "consumer"
        self._session_seconds = config.get("session.timeout.ms", 45_000) / 1000
        self._on_commit = config.get("on_commit")
        self._parts: dict[int, _Fetching] = {}
        self._topic = ""
        self._buffer: deque[tuple[int, SimulatedMessage]] = deque()
        self._waiters: list[Waiter] = []
        self._events: deque[Callable[[], None]] = deque()
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._member: Member | None = None
        self._owned: set[int] = set()
        self._heard_at = self._broker.loop.now
        self._is_closed = self._is_rebalancing = self._was_told = False
        self.loses_coordinator = False
        self._turn = 0
        self._told_until = 0.0
        self._untold: deque[tuple[str, set[int], Member]] = deque()
        """The group's messages that have not arrived yet."""
        self._commit_arrives = 0.0
        self._wake_at = 0.0
        self._broker.readers.append(self._written)

    def _written(self) -> None:
        """A record was written: wake a waiting read."""
        if self._waiters and self._parts and self.process.is_alive:
            self._wake_soon(self._broker.latency())

    def _wake_soon(self, seconds: float) -> None:
        moment = self._broker.loop.now + seconds
        if not self._broker.loop.now < self._wake_at <= moment:
            self._wake_at = moment
            self._broker.loop.in_world(moment, self._wake)

    def _wake(self) -> None:
        if self._waiters and not scheduler().is_closed:
            scheduler().wake(self._waiters)

    # The group

    def subscribe(
        self,
        topics: Sequence[str],
        on_assign: Callable[..., None],
        on_revoke: Callable[..., None],
        on_lost: Callable[..., None],
    ) -> None:
        (self._topic,) = topics
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}
        self._heard_at = self._broker.loop.now
        self._join_soon()

    def _join_soon(self) -> None:
        self._broker.loop.in_world(self._broker.loop.now + self._broker.random.uniform(0.01, 0.3), self._join)

    def _join(self) -> None:
        if self._is_closed or not self.process.is_alive:
            return
        if self.hears and not self.loses_coordinator:
            self._was_told = False
            self._heard_at = self._broker.loop.now
            self._member = self._broker.group.join(self)
        else:
            self._join_soon()

    @property
    def beats(self) -> bool:
        """Whether its heartbeats reach the group's coordinator; one that was closed has none."""
        return not self._is_closed and self.hears and not self.loses_coordinator

    @property
    def is_member(self) -> bool:
        """Whether it has joined the group."""
        return self._member is not None

    def heartbeat(self) -> None:
        """Learn whether the client is still a member, as librdkafka's own thread does at intervals."""
        member = self._member
        if self._is_closed or member is None or not self.process.is_running:
            return
        now = self._broker.loop.now
        hears = self.beats
        if hears and not member.is_expelled:
            self._heard_at = now
        is_silent = not self.is_kip_848 and now - self._heard_at > self._session_seconds
        if (hears and member.is_expelled) or is_silent:
            self._broker.group.leave(member)
            self._member = None
            self._events.append(partial(self._lose, member))
            self._wake()

    def _lose(self, member: Member) -> None:
        """All partitions are lost; after the callback, librdkafka joins the group again
        (rd_kafka_cgrp_revoke_all_rejoin).
        """
        self._call("lost", set(self._owned), member)
        self._join_soon()

    def tell(self, kind: str, numbers: set[int], member: Member) -> None:
        """Send a message of the group; it arrives a moment later."""
        moment = max(self._told_until, self._broker.loop.now + self._broker.random.uniform(0.005, 0.2))
        self._told_until = moment + 1e-6  # in order
        self._untold.append((kind, set(numbers), member))
        self._broker.loop.in_world(moment, self._told)

    def _told(self) -> None:
        """The next message of the group arrives."""
        if not self.process.is_alive or self._is_closed:
            return
        kind, numbers, member = self._untold[0]
        is_member = member is self._member and not member.is_expelled
        if is_member and (not self.hears or self.loses_coordinator):
            self._broker.loop.in_world(self._broker.loop.now + 0.25, self._told)
            return
        self._untold.popleft()
        if is_member:
            self._events.append(partial(self._call, kind, numbers, member))
            self._wake()

    def _call(self, kind: str, numbers: set[int], member: Member) -> None:
        """Call a rebalance callback; librdkafka reads nothing meanwhile."""
        if kind == "assign":
            if member is not self._member:
                return  # the callback that all partitions are lost comes next
            self._owned |= numbers
        told, numbers = numbers, numbers if kind == "assign" else numbers & self._owned
        self._broker.note(f"{self.process.name} is told: {kind} {sorted(numbers)}")
        if numbers or kind == "assign":
            self._call_back(kind, numbers)
        if kind != "assign":
            self._owned -= numbers
            self._broker.on_given_up(self.process, numbers)
        if kind == "revoke":
            self._broker.group.revoked(member, told)

    def _call_back(self, kind: str, numbers: set[int]) -> None:
        self._is_rebalancing = True
        for number in self._parts:
            self._forget_fetched(number)
        try:
            partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
            self._callbacks[kind](self, partitions)
        finally:
            self._is_rebalancing = False

    # Reading

    def poll(self, timeout: float = -1) -> SimulatedMessage | None:
        found = self.consume(1, timeout)
        return found[0] if found else None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[SimulatedMessage]:
        deadline = self._broker.loop.now + timeout
        found: list[SimulatedMessage] = []
        while True:
            while self._events:
                self._events.popleft()()
                if self._broker.loop.now > deadline:
                    return found  # the callback has taken the time that there was for fetching
            if not self._buffer:
                self._fetch()
            while self._buffer and len(found) < num_messages:
                found.append(self._next())
            left = deadline - self._broker.loop.now
            if found or left <= 0:
                return found
            scheduler().park(self._waiters, left)

    def _next(self) -> SimulatedMessage:
        number, message = self._buffer.popleft()
        if message.error() is None:
            self._parts[number].position = message.offset() + 1
        return message

    def _fetch(self) -> None:
        """Fetch available records of each partition into the buffer."""
        if self._is_rebalancing or not self.hears:
            return
        now = self._broker.loop.now
        self._turn += 1
        numbers = list(self._parts)
        for place in range(len(numbers)):
            number = numbers[(place + self._turn) % len(numbers)]
            part, log = self._parts[number], self._broker.log(self._topic, number)
            if part.is_paused:
                continue
            if now < part.ready_at:
                self._wake_soon(part.ready_at - now)
            elif now < log.leaderless_until:
                self._wake_soon(log.leaderless_until - now)
            elif part.checks or part.eof_at != log.end or part.watermarks[0] != log.low:
                self._fetch_of(number, part, log)

    def _fetch_of(self, number: int, part: _Fetching, log: Log) -> None:
        if part.checks:
            part.checks = False
            wrong = None if part.epoch is None else log.diverged_at(part.epoch, part.fetched)
            if wrong is not None:
                part.fetched = part.position = wrong
                part.eof_at = -1
        if not log.low <= part.fetched <= log.end:
            part.fetched = part.position = log.low  # auto.offset.reset: earliest
            part.eof_at = -1
        part.watermarks = (log.low, log.end)
        entries = log.read(part.fetched, FETCHED_AT_ONCE)
        for entry in entries:
            self._buffer.append((number, SimulatedMessage(self._topic, number, entry.offset, entry, None)))
        if entries:
            part.fetched = entries[-1].offset + 1
            part.epoch = entries[-1].epoch
        elif part.eof_at != log.end:
            part.fetched = part.eof_at = log.end
            eof = error_of(KafkaError._PARTITION_EOF)
            self._buffer.append((number, SimulatedMessage(self._topic, number, log.end, None, eof)))

    def leader_changed(self) -> None:
        """A leader has changed: check the positions against its log."""
        for part in self._parts.values():
            part.checks = True
        self._wake_soon(self._broker.latency())

    def _forget_fetched(self, number: int) -> None:
        self._buffer = deque(each for each in self._buffer if each[0] != number)
        part = self._parts[number]
        part.fetched = part.position
        part.eof_at = -1

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._parts.clear()
        self._buffer.clear()
        for each in partitions:
            self._topic = each.topic
            self._begin(each)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            assert each.partition not in self._parts, "assigned twice"
            self._begin(each)

    def _begin(self, place: TopicPartition) -> None:
        part = _Fetching(place.offset, _epoch_of(place))
        part.ready_at = self._broker.loop.now + FETCH_SECONDS
        self._parts[place.partition] = part
        self._wake_soon(FETCH_SECONDS)

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            self._forget_fetched(each.partition)
            del self._parts[each.partition]

    def seek(self, place: TopicPartition) -> None:
        if place.partition not in self._parts:
            raise KafkaException(error_of(KafkaError._STATE))
        part = self._parts[place.partition]
        part.position = place.offset
        part.epoch = _epoch_of(place)
        part.checks = part.epoch is not None
        self._forget_fetched(place.partition)
        part.ready_at = self._broker.loop.now + FETCH_SECONDS
        self._wake_soon(FETCH_SECONDS)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._set_paused(partitions, is_paused=True)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._set_paused(partitions, is_paused=False)
        self._wake_soon(FETCH_SECONDS)

    def _set_paused(self, partitions: Iterable[TopicPartition], *, is_paused: bool) -> None:
        for each in partitions:
            if each.partition not in self._parts:
                raise KafkaException(error_of(KafkaError._UNKNOWN_PARTITION))
            part = self._parts[each.partition]
            if part.is_paused is not is_paused:
                part.is_paused = is_paused
                self._forget_fetched(each.partition)

    # Asking

    def list_topics(self, topic: str, timeout: float = -1) -> Any:
        ask(self, timeout)
        return SimpleNamespace(topics={topic: describe(topic)}, brokers={1: None})

    def get_watermark_offsets(
        self, place: TopicPartition, timeout: float = 5.0, *, cached: bool = False
    ) -> tuple[int, int]:
        if cached:
            part = self._parts.get(place.partition)
            return (-1001, -1001) if part is None else part.watermarks
        ask(self, timeout)
        log = self._broker.log(place.topic, place.partition)
        if self._broker.loop.now < log.leaderless_until:
            raise KafkaException(error_of(KafkaError.LEADER_NOT_AVAILABLE))
        return log.low, log.end

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float = -1) -> list[Any]:
        ask(self, timeout)
        return [self._bound(place) for place in places]

    def _bound(self, place: TopicPartition) -> Any:
        log = self._broker.log(place.topic, place.partition)
        is_led = self._broker.loop.now >= log.leaderless_until
        error = None if is_led else error_of(KafkaError.LEADER_NOT_AVAILABLE)
        offset = {OFFSET_BEGINNING: log.low, OFFSET_END: log.end}[place.offset]
        return SimpleNamespace(partition=place.partition, offset=offset, error=error)

    def committed(self, partitions: Sequence[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        ask(self, timeout)
        if self.loses_coordinator:
            raise KafkaException(error_of(KafkaError._WAIT_COORD))
        found = []
        for each in partitions:
            commit = self._broker.group.commits.get((each.topic, each.partition))
            if commit is None:
                found.append(TopicPartition(each.topic, each.partition, -1001))
            elif commit.epoch is None:
                found.append(TopicPartition(each.topic, each.partition, commit.offset, commit.metadata))
            else:
                found.append(
                    TopicPartition(each.topic, each.partition, commit.offset, commit.metadata, commit.epoch)
                )
        return found

    # Committing

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        answer: list[KafkaError | None] = []
        waiters: list[Waiter] = []

        def ended(error: KafkaError | None) -> None:
            answer.append(error)
            if not asynchronous:
                scheduler().wake(waiters)
            elif self._on_commit is not None:
                self._events.append(partial(self._on_commit, error, list(offsets)))
                self._wake()

        self._send_commit(list(offsets), ended)
        if asynchronous:
            return None
        while not answer:
            scheduler().park(waiters, None)
        if answer[0] is not None:
            raise KafkaException(answer[0])
        return list(offsets)

    def _send_commit(
        self, offsets: Sequence[TopicPartition], ended: Callable[[KafkaError | None], None]
    ) -> None:
        """Send one commit request; its answer may be lost although the commit was made."""
        kafka, loop, context = self._broker, self._broker.loop, self.process.context
        member = self._member
        if self.loses_coordinator or not self.hears:
            code = KafkaError._WAIT_COORD if self.loses_coordinator else KafkaError._TIMED_OUT
            loop.call_later(COMMIT_SECONDS / 2, ended, error_of(code), context=context)
            return

        def arrive() -> None:
            error = None
            if member is None or not kafka.group.takes_commits_of(member):
                error = error_of(KafkaError.UNKNOWN_MEMBER_ID)
            else:
                for each in offsets:
                    commit = Commit(each.offset, each.metadata, _epoch_of(each))
                    kafka.group.commits[each.topic, each.partition] = commit
                    kafka.on_commit(self.process, each.partition, commit)
            seconds = kafka.latency()
            if loop.now < kafka.forgets_answers_until and kafka.random.random() < 0.5:
                error, seconds = error_of(KafkaError._TIMED_OUT), COMMIT_SECONDS
            loop.call_later(seconds, ended, error, context=context)

        # One connection: requests come in the order in which they were sent.
        self._commit_arrives = max(loop.now + kafka.latency(), self._commit_arrives + 1e-6)
        loop.in_world(self._commit_arrives, arrive)

    def close(self) -> None:
        if self._is_closed:
            return
        member = self._member
        while self._events:
            self._events.popleft()()
        if self._owned and member is not None:
            kind = "lost" if member.is_expelled else "revoke"
            self._call(kind, set(self._owned), member)
        self._is_closed = True
        if self._written in self._broker.readers:
            self._broker.readers.remove(self._written)
        if self._member is not None and self.hears and not self.loses_coordinator:
            self._broker.group.leave(self._member)
        self._parts.clear()
        self._buffer.clear()


def _epoch_of(place: TopicPartition) -> int | None:
    epoch: int | None = place.leader_epoch
    return None if epoch is None or epoch < 0 else epoch


class _Queued:
    """A record that waits for its broker."""

    __slots__ = ("headers", "key", "on_delivery", "timestamp_ms", "value")

    def __init__(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, Any]],
        on_delivery: Callable[..., None],
        timestamp_ms: int,
    ) -> None:
        self.key = key
        self.value = value
        self.headers = headers
        self.on_delivery = on_delivery
        self.timestamp_ms = timestamp_ms


class SimulatedProducer(_Client):
    """`confluent_kafka.Producer`, idempotent."""

    def __init__(self, config: Mapping[str, Any], logger: object = None) -> None:
        del config, logger
        super().__init__()
        self._queues: dict[tuple[str, int], deque[_Queued]] = {}
        self._in_flight: dict[tuple[str, int], list[_Queued]] = {}
        self._reports: deque[tuple[_Queued, KafkaError | None, str, int, int]] = deque()
        self._fatal: KafkaError | None = None
        self._fatal_is_told = False
        self._waiters: list[Waiter] = []
        self._count = 0
        self._broker.producers.append(self)

    def __len__(self) -> int:
        return self._count

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int = -1,
        headers: Iterable[tuple[str, Any]] = (),
        on_delivery: Callable[..., None] = lambda *_: None,
    ) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if partition < 0:
            partition = sum(key or b"") % len(self._broker.topics[topic].logs)
        queued = _Queued(key, value, list(headers), on_delivery, _now_ms(self.process, self._broker))
        self._count += 1
        self._queues.setdefault((topic, partition), deque()).append(queued)
        self._send_soon((topic, partition), self._broker.random.uniform(0.0, 0.001))

    def _send_soon(self, place: tuple[str, int], seconds: float) -> None:
        if place not in self._in_flight:
            self._in_flight[place] = []
            self._broker.loop.call_later(seconds, self._send, place, context=self.process.context)

    def _send(self, place: tuple[str, int]) -> None:
        """Send all waiting records of one partition in one request."""
        if self._in_flight.pop(place, None) is None:
            return  # purged
        queue = self._queues[place]
        if not queue or self._fatal is not None:
            return
        kafka = self._broker
        log = kafka.log(*place)
        if not self.hears or kafka.loop.now < log.leaderless_until:
            self._send_soon(place, SEND_AGAIN_SECONDS)
            return
        batch = self._in_flight[place] = list(queue)
        queue.clear()
        kafka.loop.in_world(kafka.loop.now + kafka.latency(), self._arrive, place, batch, log)

    def _arrive(self, place: tuple[str, int], batch: list[_Queued], log: Log) -> None:
        kafka = self._broker
        loop, context = kafka.loop, self.process.context
        current = kafka.log(*place)
        error = None
        if loop.now < current.refuses_until:
            error = error_of(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        elif loop.now < current.leaderless_until or loop.now < kafka.is_down_until:
            loop.in_world(loop.now + SEND_AGAIN_SECONDS, self._arrive, place, batch, log)
            return
        base = current.end
        if error is None:
            for each in batch:
                kafka.append(current, each.key, each.value, each.headers, each.timestamp_ms)
        loop.call_later(kafka.latency(), self._answered, place, batch, error, base, context=context)

    def _answered(
        self, place: tuple[str, int], batch: list[_Queued], error: KafkaError | None, base: int
    ) -> None:
        if self._in_flight.get(place) is not batch:
            return  # purged
        if not self.hears:  # the answer is lost; the retry makes no duplicate
            again = partial(self._answered, place, batch, error, base)
            self._broker.loop.call_later(SEND_AGAIN_SECONDS, again, context=self.process.context)
            return
        del self._in_flight[place]
        topic, number = place
        self._reports.extend(
            (each, error, topic, number, -1 if error else base + index) for index, each in enumerate(batch)
        )
        self._wake()
        if self._queues[place]:
            self._send_soon(place, 0.0)

    def _wake(self) -> None:
        if self._waiters:
            scheduler().wake(self._waiters)

    def fail(self) -> None:
        """Fail for ever: the client does not learn which of the records under way were written."""
        self._fatal = error_of(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order", fatal=True)
        self._wake()

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        del blocking
        for (topic, number), queue in self._queues.items():
            if in_queue:
                error = error_of(KafkaError._PURGE_QUEUE)
                self._reports.extend((each, error, topic, number, -1) for each in queue)
                queue.clear()
        if in_flight:
            error = error_of(KafkaError._PURGE_INFLIGHT)
            for (topic, number), batch in self._in_flight.items():
                self._reports.extend((each, error, topic, number, -1) for each in batch)
            self._in_flight.clear()

    def poll(self, timeout: float = 0) -> int:
        if timeout > 0 and not self._reports and self._fatal is None:
            scheduler().park(self._waiters, timeout)
        served = 0
        while self._reports:
            queued, error, topic, number, offset = self._reports.popleft()
            self._count -= 1
            served += 1
            entry = Entry(offset, queued.key, queued.value, (), queued.timestamp_ms, 0)
            queued.on_delivery(error, SimulatedMessage(topic, number, offset, entry, error))
        if self._fatal is not None and not self._fatal_is_told:
            self._fatal_is_told = True
            raise KafkaException(self._fatal)
        return served

    def flush(self, timeout: float = -1) -> int:
        self.poll(timeout)
        return len(self)

    def list_topics(self, topic: str, timeout: float = -1) -> Any:
        ask(self, timeout)
        return SimpleNamespace(topics={topic: describe(topic)}, brokers={1: None})


def _now_ms(process: Process, kafka: Broker) -> int:
    return kafka.wall_ms() + process.clock_step_ms


class _Answer:
    """A future of the admin client's."""

    def __init__(self, find: Callable[[], Any], client: _Client, seconds: float) -> None:
        self._find = find
        self._client = client
        self._seconds = seconds

    def result(self, timeout: float | None = None) -> Any:
        ask(self._client, self._seconds if timeout is None else min(timeout, self._seconds))
        return self._find()


class SimulatedAdmin(_Client):
    """`confluent_kafka.admin.AdminClient`."""

    def __init__(self, config: Mapping[str, Any], logger: object = None) -> None:
        del config, logger
        super().__init__()

    def describe_topics(self, topics: Any, request_timeout: float = 5.0) -> dict[str, _Answer]:
        return {
            name: _Answer(partial(self._described, name), self, request_timeout)
            for name in topics.topic_names
        }

    def _described(self, name: str) -> Any:
        is_hidden = self._broker.loop.now < self._broker.hides_ids_until
        return SimpleNamespace(topic_id=None if is_hidden else self._broker.topics[name].id)

    def list_offsets(
        self,
        asked: Mapping[TopicPartition, Any],
        isolation_level: object = None,
        request_timeout: float = 5.0,
    ) -> dict[TopicPartition, _Answer]:
        del isolation_level
        return {
            place: _Answer(partial(self._end, place.topic, place.partition), self, request_timeout)
            for place in asked
        }

    def _end(self, topic: str, number: int) -> Any:
        log = self._broker.log(topic, number)
        if self._broker.loop.now < log.leaderless_until:
            raise KafkaException(error_of(KafkaError.LEADER_NOT_AVAILABLE))
        return SimpleNamespace(offset=log.end)
