"""One process's way to Kafka: a producer, and one daemon thread that serves it.

In: encoded events, from any thread. Out: records on the topic; errors to `Complaints`, and the events that Kafka did
not take to `on_undelivered`. The caller only hands over to librdkafka (about a microsecond, also when Kafka is down).
The thread does what may take long: creating the producer, asking the registry for ids, delivery reports, reporting
errors. Until the producer and the ids are there, events wait in a deque, in order. `flagpost_kafka` decides what to
do about errors that end a producer, or about missing rights.
"""

from __future__ import annotations

import contextlib
from collections import deque
from threading import Event as Flag
from threading import RLock, Thread, current_thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaException, Producer

from flagpost_kafka import errors
from flagpost_kafka.lasting_producer import LastingProducer, Limits, ProducedRecord
from flagpost_publisher.errors import DeliveryFailed, EventRefused, KafkaTrouble, PublisherError
from flagpost_publisher.producer import (
    MAX_QUEUED_BYTES,
    client_log,
    message_timeout_seconds,
    producer_config,
)
from flagpost_publisher.registry import Registry, event_headers
from flagpost_publisher.stats import PublisherStats
from flagpost_schemas import Decoder, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from logging import Logger

    from confluent_kafka import KafkaError

    from flagpost_publisher.arguments import Options
    from flagpost_publisher.complaints import Complaints
    from flagpost_schemas import Event

WAKE_SECONDS: Final = 0.1
"""How often the thread looks at delivery reports and errors while nothing is urgent."""

RARELY_SECONDS: Final = 2.0
"""The same while the thread is not needed: callers handle the reports, or nothing was accepted. In a process that is
busy with Python a thread that wakes waits long for the interpreter, and slows `decide()` down (decision 0035).
"""

REPORTS_EVERY: Final = 32
"""After this many events the caller handles delivery reports itself, 0.3 us each, and the thread does not. For each
report confluent-kafka takes the interpreter's lock again: in a process that is busy with Python the thread would wait
5 ms for each, interrupt a decide() each time, and still handle only 200 a second.
"""

RETRY_SECONDS: Final = 0.2
MAX_RETRY_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 0.5
"""How long a new connection may take; a fork waits for it. While librdkafka's threads look up an address, glibc holds
a lock (getaddrinfo's, in __check_pf) that a child would inherit locked: no Kafka client could ever connect there.
"""

STOP_SECONDS: Final = 1.0
"""How long close() waits at most for the thread beyond its time-out; librdkafka may take as long to drop the rest."""

MAX_UNDELIVERED_BYTES: Final = 8 * 1024 * 1024
"""Limit of what may wait for the thread to report to `on_undelivered`; beyond it only the fact is reported."""


class Message(NamedTuple):
    """An event on its way: its class (which decides the header), its Kafka key and its Avro body."""

    event_type: type[Event]
    key: str | bytes | None
    body: bytes


class KafkaOutput:
    """One publisher's way to Kafka in one process. Threads may share it."""

    def __init__(
        self,
        options: Options,
        complaints: Complaints,
        on_undelivered: Callable[[Event | None, str], None],
        chore: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts nothing: the first event does.

        `on_undelivered` is called with each event that Kafka did not take, and why, in a word; with None for some
        that are not remembered. `chore` is called by the thread in each of its turns, and must not block.
        """
        self._options = options
        self._complaints = complaints
        self._on_undelivered = on_undelivered
        self._chore = chore
        self._lock = RLock()  # re-entrant: a signal handler may call decide()
        self._thread: Thread | None = None
        self._stopping = Flag()
        self._ended = Flag()  # the thread takes no more turns
        self._given_up = Flag()  # by close(): the thread reports the last errors
        self._open = Flag()  # set once the producer and the headers are there and nothing waits
        self._direct = False  # the same, and not closed: read for each event, for which a Flag is too slow
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._undelivered: deque[tuple[bytes | None, str]] = deque()
        self._undelivered_bytes = 0
        self._producer: LastingProducer | None = None
        self._connecting_until = 0.0
        self._headers: Mapping[type[Event], bytes] = {}
        self._decoder = Decoder()
        self._callers_served = False
        self._needed = Flag()  # the thread has something to do that cannot wait
        self._accepted = 0
        self._seen = 0  # of the accepted ones, when the thread last looked
        self._delivered = 0
        self._failed = 0

    def send(self, event_type: type[Event], key: str | bytes | None, body: bytes) -> None:
        """Hand an event to Kafka, as described in `Message`. Raises EventRefused; never waits."""
        with self._lock:
            if self._direct:
                self._produce(event_type, key, body)
            else:
                self.start()
                self._wait(Message(event_type, key, body))
            self._accepted += 1
            reporting = self._producer if self._accepted % REPORTS_EVERY == 0 else None
        if reporting is not None:
            self._callers_served = reporting.serve()
            if not self._callers_served:
                self._needed.set()

    def start(self) -> None:
        """Start the thread if it does not run. Raises EventRefused after close()."""
        with self._lock:
            if self._stopping.is_set():
                raise EventRefused("closed", "the publisher is closed; create another one")
            if self._thread is None:
                self._connecting_until = monotonic() + CONNECT_SECONDS
                # Before it starts: a signal handler may come here meanwhile.
                self._thread = Thread(target=self._run, name="flagpost-publisher", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # there can be no more threads for now
                    self._thread = None
                    raise

    def stats(self) -> PublisherStats:
        """The results of the accepted events.

        librdkafka's queue also holds its messages to us, which cannot be told apart: until the thread has handled
        them, a delivered event may still be shown as queued.
        """
        with self._lock:
            held = len(self._waiting) + (0 if self._producer is None else len(self._producer))
            failed = self._failed + (0 if self._producer is None else self._producer.lost)
            self._delivered = max(self._delivered, self._accepted - failed - held)
            return PublisherStats(
                accepted=self._accepted,
                delivered=self._delivered,
                failed=failed,
                queued=self._accepted - failed - self._delivered,
            )

    def flush(self, timeout_seconds: float) -> int:
        """Wait until Kafka has everything, at most `timeout_seconds`. Returns how many events are left."""
        deadline = monotonic() + timeout_seconds
        with self._lock:
            accepted = self._accepted
        if self.stats().queued == 0:
            return 0
        # on_error may call this in the thread itself, for which nobody else hands over what waits.
        to_open = 0.0 if self._is_thread() else timeout_seconds
        if self._open.wait(to_open) and self._producer is not None:
            left = self._producer.flush(max(0.0, deadline - monotonic()))
            if left == 0:
                # The client's queue is reliable only now: an error message to us may join it at any time.
                with self._lock:
                    self._delivered = max(self._delivered, accepted - self._failed)
        return self.stats().queued

    def close(self, timeout_seconds: float) -> int:
        """Flush, stop, and give up what is left. Returns how many events that were; they count as failed.

        The errors are reported by the thread: whoever calls this may hold a lock that `on_error` takes.
        """
        self.flush(timeout_seconds)
        self._stop()
        self._await_end(STOP_SECONDS)
        left = self._give_up()
        until = monotonic() + STOP_SECONDS
        while self._undelivered and monotonic() < until:
            self._tell_undelivered()
        self._given_up.set()
        self._join(until - monotonic())
        return left

    def end(self, timeout_seconds: float) -> None:
        """At the end of the process: flush and stop the thread; librdkafka's own threads end with the process."""
        self.flush(timeout_seconds)
        self._stop()
        self._await_end(WAKE_SECONDS)

    def let_connect(self) -> None:
        """Before a fork: wait until a connection that has just begun is established."""
        sleep(max(0.0, self._connecting_until - monotonic()))

    def abandon(self) -> None:
        """In a forked child: forget the parent's producer without destroying it.

        The thread is only in a child if it is a greenlet: it ends.
        """
        # Another one: a thread that was not copied may hold the lock of the parent's.
        self._stopping = Flag()
        self._stopping.set()
        if self._producer is not None:
            self._producer.abandon()

    def _is_thread(self) -> bool:
        """Whether this is called in the thread: by `on_error`."""
        return self._thread is current_thread()

    def _await_end(self, seconds: float) -> None:
        """Wait until the thread takes no more turns."""
        if self._thread is not None and not self._is_thread():
            self._ended.wait(seconds)

    def _join(self, seconds: float) -> None:
        """Wait until the thread has reported the last errors. A thread that has not started yet cannot be joined."""
        if self._thread is not None and not self._is_thread() and self._thread.is_alive():
            self._thread.join(max(0.0, seconds))

    def _stop(self) -> None:
        """Accept no more events, and let the thread end."""
        with self._lock:
            self._stopping.set()
            self._needed.set()
            self._direct = False

    # In the caller: under the lock.

    def _wait(self, message: Message) -> None:
        size = len(message.body)
        full = len(self._waiting) >= self._options.queue_max_messages
        if full or self._waiting_bytes + size > MAX_QUEUED_BYTES:
            raise _queue_full()
        self._waiting.append(message)
        self._waiting_bytes += size

    def _produce(self, event_type: type[Event], key: str | bytes | None, body: bytes) -> None:
        producer = self._producer
        if producer is None:
            raise EventRefused("closed", "the publisher is closed; create another one")
        value = self._headers[event_type] + body
        try:
            producer.hand_over(self._options.topic, value, key)
        except BufferError:
            raise _queue_full() from None
        except KafkaException as error:
            raise EventRefused(
                "kafka",
                f"the Kafka client did not accept an event: {_text(error)}; see librdkafka's documentation",
            ) from None

    # In the thread.

    def _run(self) -> None:
        """Nobody would notice if the thread ended: it reports errors, and goes on."""
        while not self._stopping.is_set():
            try:
                if self._producer is None:
                    self._set_up()
                while not self._stopping.is_set():
                    self._needed.wait(self._look_after())
            except Exception as error:  # noqa: BLE001 - whatever it is, events must go on
                self._complaints.note(_defect(error))
                with contextlib.suppress(Exception):
                    self._complaints.tell()
                self._stopping.wait(RETRY_SECONDS)
        self._ended.set()
        self._given_up.wait()
        with contextlib.suppress(Exception):
            self._complaints.tell_now()

    def _set_up(self) -> None:
        """Get the headers and create the producer, trying until both are there or the publisher is closed."""
        pause = RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                self._headers = self._learn_headers()
                if self._stopping.is_set():  # nobody would close the producer
                    return
                self._producer = self._new_producer()
            except PublisherError as error:
                self._complaints.note(error)
            except KafkaException as error:
                self._complaints.note(
                    KafkaTrouble("kafka", f"no producer could be created: {_text(error)}; events wait")
                )
            else:
                self._drain()
                return
            self._complaints.tell()
            self._stopping.wait(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)

    def _learn_headers(self) -> Mapping[type[Event], bytes]:
        url = self._options.schema_registry_url
        if url is None:
            return event_headers(None)
        ids = Registry(url, self._options.properties).ids_for(self._options.topic)
        for event_type, schema_id in ids.items():
            self._decoder.add_schema(schema_id, schema_of(event_type).text)
        return event_headers(ids)

    def _new_producer(self) -> LastingProducer:
        options = self._options
        config = producer_config(options)
        limits = Limits(
            records=options.queue_max_messages,
            bytes=MAX_QUEUED_BYTES,
            give_up_seconds=message_timeout_seconds(options.properties),
        )
        return LastingProducer(
            config,
            limits,
            self._trouble,
            topics=[options.topic],
            logger=client_log,
            on_failed=self._report,
            lock=self._lock,
            make=self._connect,
        )

    def _connect(self, config: dict[str, Any], *, logger: Logger) -> Producer:
        self._connecting_until = monotonic() + CONNECT_SECONDS
        return Producer(config, logger=logger)

    def _look_after(self) -> float:
        """One turn. Returns how many seconds the thread may rest after it."""
        self._needed.clear()
        self._drain()
        callers_served, self._callers_served = self._callers_served, False
        if self._producer is not None and not callers_served:
            self._producer.poll(0)
        if self._undelivered:  # one in each turn: the application's threads need the interpreter more
            self._tell_undelivered()
        self._chore()
        self._complaints.tell()
        if self._undelivered or self._stopping.is_set():  # a stop may have come before `_needed` was cleared
            return 0.0
        is_idle = self._direct and self._seen == self._accepted
        self._seen = self._accepted
        return RARELY_SECONDS if callers_served or is_idle else WAKE_SECONDS

    def _tell_undelivered(self) -> None:
        with contextlib.suppress(Exception):
            value, reason = self._undelivered.popleft()
            self._undelivered_bytes -= len(value or b"")
            self._on_undelivered(None if value is None else self._decoder.decode(value), reason)

    def _drain(self) -> None:
        """Hand over what waits, in order; after the last one events take the direct way."""
        while not self._open.is_set():
            with self._lock:
                if not self._waiting:
                    self._open.set()
                    self._direct = not self._stopping.is_set()
                elif not self._hand_over(self._waiting[0]):
                    return
                else:
                    self._waiting_bytes -= len(self._waiting.popleft().body)

    def _hand_over(self, message: Message) -> bool:
        """False: the queue is full for now."""
        try:
            self._produce(*message)
        except EventRefused as error:
            if error.kind == _QUEUE_FULL:
                return False
            self._fail(str(error))
            self._remember_undelivered(self._headers[message.event_type] + message.body, error.kind)
        return True

    def _give_up(self) -> int:
        left = self.stats().queued
        if self._producer is not None:
            self._producer.close()
        headers = event_headers(None)  # the headers with the registry's ids may never have come
        with self._lock:
            for message in self._waiting:
                self._remember_undelivered(headers[message.event_type] + message.body, "closed")
            for _ in range(self.stats().queued):
                self._fail("the publisher was closed before it was sent")
            self._waiting.clear()
            self._producer = None
        return left

    # Delivery reports and the producer's errors, handled in whichever thread polls.

    def _report(self, error: KafkaError | None, record: ProducedRecord, _: int) -> None:
        if error is not None:
            self._fail(error.str())
            reason = "closed" if error.code() in errors.PURGED else error.name().removeprefix("_").lower()
            self._remember_undelivered(record.value or b"", reason)

    def _remember_undelivered(self, value: bytes, reason: str) -> None:
        with self._lock:
            if self._undelivered_bytes + len(value) <= MAX_UNDELIVERED_BYTES:
                self._undelivered.append((value, reason))
                self._undelivered_bytes += len(value)
            elif not self._undelivered or self._undelivered[-1][0] is not None:
                self._undelivered.append((None, reason))

    def _trouble(self, error: KafkaError) -> None:
        end = "; the client is replaced" if errors.is_fatal(error) else ""
        kind = "rights" if error.code() in errors.RIGHTS_AND_TOPICS else "kafka"
        self._complaints.note(KafkaTrouble(kind, f"Kafka: {error.str()}{end}; events wait"))

    def _fail(self, why: str) -> None:
        with self._lock:
            self._failed += 1
        self._complaints.note(DeliveryFailed("delivery", f"an accepted event did not reach Kafka: {why}"))


_QUEUE_FULL: Final = "queue_full"


def _queue_full() -> EventRefused:
    return EventRefused(
        _QUEUE_FULL,
        "the queue is full: Kafka takes events slower than they come, or not at all; look at Kafka, "
        "or raise queue_max_messages",
    )


def _defect(error: Exception) -> PublisherError:
    told = PublisherError(
        "thread", f"{type(error).__name__} was raised in the publisher's thread, which continues"
    )
    told.__cause__ = error
    return told


def _text(error: KafkaException) -> str:
    return str(error.args[0].str())
