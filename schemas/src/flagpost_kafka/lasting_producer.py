"""A producer that survives the fatal errors of librdkafka, and the loss of all its brokers.

In: records, from any thread. Out: for each record a report: Kafka has it, or an error that concerns the record.

librdkafka raises a fatal error out of poll(), flush() and produce(), even if `error_cb` is set. From then on the
producer accepts nothing, and what it held is reported as failed. The records are not at fault: the producer is
replaced, after a pause that grows while the errors go on, and what was not acknowledged is written again, each
partition's records in order and before anything newer. Kafka may then have some of them twice. If Kafka refused a
batch because of a missing right, and the right is granted before the refusal is noticed, the next batch may come
before it.

librdkafka may also lose all its brokers for good, and raises nothing then (`reach`). A producer that waits for
Kafka in vain for a while is compared with a new one, in a thread of its own; if only the new one reaches Kafka, the
old one ends as after a fatal error.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import Lock, RLock, Thread
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from flagpost_kafka import errors, greenlets, reach, rights
from flagpost_kafka.backoff import Backoff

if TYPE_CHECKING:
    import logging

    from confluent_kafka import Message
    from confluent_kafka.admin._metadata import ClusterMetadata

FIRST_PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 10.0
"""How long after its end a producer is replaced: the first pause, and the longest."""
WELL_SECONDS: Final = 60.0
"""After a producer that lived this long the pause is the first again."""
PROVEN_SECONDS: Final = 2.0
"""A successor that is not refused at once lives this long; the first producer is trusted before."""
DRAIN_SECONDS: Final = 10.0
"""How long a dead producer is asked for its reports; after a purge that takes milliseconds."""
CLOSE_SECONDS: Final = 1.0
"""How long librdkafka may take to drop what is left."""
SLICE_SECONDS: Final = 0.05
"""How long one call waits at most while there is no producer."""
CALL_SECONDS: Final = 0.1
"""How long one call of librdkafka's may wait. confluent-kafka cuts longer ones into slices of 0.2 s, and goes on to
the next after a fatal error: the reports in it are called with an exception pending, and are lost.
"""
FED_TOGETHER: Final = 500
"""Records that are handed to a new producer without releasing the lock."""
UNHEARD_SECONDS: Final = 10.0
MAX_UNHEARD_SECONDS: Final = 60.0
"""How long a producer may wait for Kafka in vain until it is compared with a new one: at first, and at most."""
MAX_TROUBLES: Final = 100
"""Errors that concern no record and were not reported yet; beyond this the oldest are forgotten."""

Headers = Sequence[tuple[str, str | bytes | None]]
OnReport = Callable[["KafkaError | None", "ProducedRecord", int], None]
"""Called with the error, or None; the record; and its offset in Kafka, else -1."""


@dataclass(slots=True, eq=False)
class ProducedRecord:
    """A record that is being written to Kafka."""

    topic: str
    value: bytes | None
    key: str | bytes | None
    on_report: OnReport
    since: float
    """When it was handed over, monotonic seconds."""
    partition: int = -1
    """-1: by the key, until Kafka has it."""
    headers: Headers = ()
    number: int = -1
    """The order in which records were accepted: librdkafka may report a partition's newest queue first."""

    @property
    def size_bytes(self) -> int:
        """The approximate bytes in memory."""
        return len(self.value or b"") + len(self.key or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait while there is no producer, and for how long it is written again."""

    records: int
    bytes: int
    give_up_seconds: float = inf
    """An older record is not written again: it is reported as timed out."""


class LastingProducer:
    """A librdkafka producer and its successors. Threads may share it; reports come in whichever thread polls.

    Only `hand_over` and `produce` raise; only `poll`, `flush` and `close` wait.
    """

    def __init__(  # noqa: PLR0913 - the last three are for tests
        self,
        config: Mapping[str, Any],
        limits: Limits,
        on_trouble: Callable[[KafkaError], None],
        *,
        topics: Sequence[str],
        logger: logging.Logger,
        on_failed: OnReport | None = None,
        lock: RLock | None = None,
        make: Callable[..., Producer] = Producer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects in the background.

        Args:
            config: librdkafka's properties, without callbacks.
            limits: of what waits here; librdkafka's own limits apply to what waits there.
            on_trouble: called with errors that concern no record, including fatal ones.
            topics: those that it writes, to name missing rights.
            logger: gets librdkafka's own lines.
            on_failed: called with records of `hand_over` that failed.
            lock: the owner's, if it also needs one over its own state.
            make: makes a librdkafka producer.
            clock: returns monotonic seconds.

        Raises:
            KafkaException: librdkafka refuses the properties.
        """
        self._config = config
        self._limits = limits
        self._on_trouble = on_trouble
        self._topics = topics
        self._needed = [rights.writes(topic) for topic in topics]
        self._on_failed = on_failed or _unheard
        self._logger = logger
        self._make = make
        self._clock = clock
        self._lock = lock or RLock()  # re-entrant: a report, or a signal handler, may produce
        self._tending = Lock()
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        self._troubles: deque[KafkaError] = deque(maxlen=MAX_TROUBLES)
        self._reports: deque[tuple[ProducedRecord, KafkaError | None, int]] = deque()
        self._expected: dict[ProducedRecord, None] = {}  # of `produce`, in order: not reported yet
        self._held: deque[ProducedRecord] = deque()  # waits for a producer
        self._held_bytes = 0
        self._returned: deque[ProducedRecord] = deque()  # what the dying producer could not write
        self._accepted = 0  # records; each has the next number
        self._dying: Producer | None = None
        self._dying_until = 0.0
        self._compared: Producer | None = None  # a new one, to which the present one is compared
        self._comparing = False
        self._failed = 0  # records that librdkafka has reported as failed, some of them more than once
        self._unanswered = False  # the last question got no answer
        self._written = -inf  # records that Kafka has, up to a constant, when one was last written
        self._look_at = 0.0
        self._patience_seconds = UNHEARD_SECONDS
        self._replace_at = 0.0
        self._recalled = False
        self._replaced = False
        self._closed = False
        self.lost = 0
        """Records of `hand_over` about which a dead producer reported nothing for `DRAIN_SECONDS`."""
        self._handed_over = _numbers_to(self._handed_over_reported)
        self._producer: Producer | None = self._new_producer()
        self._made_at = clock()
        self._open = True  # there is a producer, and nothing waits before it

    def __len__(self) -> int:
        """The number of records being written (including librdkafka's other messages to us, which cannot be told
        apart).
        """
        raw = self._producer or self._dying
        inside = 0 if raw is None else len(raw)
        return inside + len(self._held) + len(self._returned) + len(self._reports)

    @property
    def is_well(self) -> bool:
        """Whether there is a producer, and not one that may end at once like the one before."""
        return self._open and (not self._replaced or self._clock() - self._made_at >= PROVEN_SECONDS)

    def list_topics(self, topic: str, seconds: float) -> ClusterMetadata:
        """Kafka's metadata of a topic. Raises KafkaException: Kafka does not answer, or there is no producer now."""
        raw = self._producer
        if raw is None:
            raise KafkaException(KafkaError(KafkaError._STATE, "the client is being replaced"))  # noqa: SLF001
        self._unanswered = True
        found: ClusterMetadata = raw.list_topics(topic, timeout=seconds)
        self._unanswered = False
        return found

    @property
    def held_bytes(self) -> int:
        """Bytes that wait here for a producer."""
        return self._held_bytes

    def hand_over(self, topic: str, value: bytes, key: str | bytes | None) -> None:
        """Accept a record of which only a failure is reported, to `on_failed`: the cheapest way.

        A record that fails because of a missing right or topic is written again until `give_up_seconds`.

        Raises:
            BufferError: no more may wait.
            KafkaException: librdkafka refuses this record.
        """
        with self._lock:
            number = self._accepted
            self._accepted += 1
            if self._open:
                try:
                    self._producer.produce(topic, value, key, -1, self._handed_over(number))  # type: ignore[union-attr]
                except KafkaException as error:
                    if not self._ends(error.args[0], errors.RIGHTS_AND_TOPICS):
                        raise
                else:
                    return
            self._hold(ProducedRecord(topic, value, key, self._on_failed, self._clock(), number=number))

    def produce(
        self,
        topic: str,
        value: bytes | None,
        on_report: OnReport,
        *,
        key: str | bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> None:
        """Accept a record; `on_report` is called by a later `poll`, `flush` or `close`. `partition` -1: by the key.

        Raises:
            BufferError: no more may wait.
        """
        with self._lock:
            number = self._accepted
            self._accepted += 1
            record = ProducedRecord(topic, value, key, on_report, self._clock(), partition, headers, number)
            try:
                if not self._open or not self._pass_on(record):
                    self._hold(record)
            except KafkaException as error:
                self._reports.append((record, error.args[0], -1))
            self._expected[record] = None

    def recall(self) -> None:
        """Have everything that was not sent yet reported as purged (`errors.PURGED`); the rest is reported as usual.

        A record that has just been sent, and returns because its partition has another leader, is not included: call
        again.
        """
        with self._lock:
            if self._producer is not None:
                self._recalled = True
                self._producer.purge(in_queue=True, in_flight=False, blocking=False)
            elif self._dying is None:
                self._recalled = True
                self._report_held()

    def renew(self) -> None:
        """Have the producer replaced: a topic was created anew, and it may still know the leaders of the old one.

        librdkafka ignores a leader whose epoch is below the one that it knows. Unacknowledged records are written
        again by the successor, as after a fatal error.
        """
        self._end(self._producer)

    def poll(self, seconds: float = 0.0) -> None:
        """Make the reports that are due; wait at most this long for one."""
        if not self._open:
            self._tend()
        raw = self._producer
        if raw is not None:
            self._call(raw, raw.poll, min(seconds, CALL_SECONDS))
        elif seconds > 0 and not self._reports:
            time.sleep(min(seconds, SLICE_SECONDS))
        self._serve()
        self._look_whether_cut_off()

    def serve(self) -> bool:
        """Make the reports that are due, without anything that may take long: for callers in a hurry.

        Returns False if there is no producer now, and a `poll` has to create one.
        """
        if not self._open:
            return False
        self.poll()
        return True

    def flush(self, seconds: float) -> int:
        """Wait until everything is reported, at most this long; returns how many records are left."""
        deadline = time.monotonic() + seconds
        while left := len(self):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return left
            raw = self._producer
            if self._open and raw is not None:
                self._call(raw, raw.flush, min(remaining, CALL_SECONDS))
                self._serve()
                self._look_whether_cut_off()
            else:
                self.poll(min(remaining, SLICE_SECONDS))
        return 0

    def close(self) -> None:
        """Give up what is being written: it is reported as purged. Nothing is accepted from now on."""
        with self._lock:
            self._closed = True
            self._open = False
            raw = [self._producer or self._dying]
            self._producer, self._dying = None, None
        if raw[0] is not None:
            self._drop(raw[0])
        greenlets.call(raw.clear)  # it waits for librdkafka's threads
        with self._lock:
            self._held.extendleft(reversed(self._returned))
            self._returned.clear()
            self._report_held()
        self._serve()

    def _drop(self, raw: Producer) -> None:
        raw.purge()
        deadline = time.monotonic() + CLOSE_SECONDS
        while len(raw) and time.monotonic() < deadline:
            self._call(raw, raw.flush, CALL_SECONDS)

    def abandon(self) -> None:
        """In a forked child: forget the parent's producers without destroying them. Takes no lock.

        librdkafka would wait for its threads, which a fork does not copy: references are leaked on purpose.
        """
        for raw in (self._producer, self._dying, self._compared):
            if raw is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))

    # Accepting records: under the lock

    def _pass_on(self, record: ProducedRecord) -> bool:
        """Pass a record to librdkafka; False: the producer has ended. Raises like `produce`."""
        try:
            self._producer.produce(  # type: ignore[union-attr]  # called while there is one
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                headers=list(record.headers),
                on_delivery=partial(self._reported, record),
            )
        except KafkaException as error:
            if not self._ends(error.args[0], errors.RIGHTS_AND_TOPICS if self._is_patient(record) else set()):
                raise
            return False
        return True

    def _hold(self, record: ProducedRecord) -> None:
        size = record.size_bytes
        full = len(self) >= self._limits.records or self._held_bytes + size > self._limits.bytes
        if full or self._closed:
            raise BufferError("no more records may wait for Kafka")
        self._held.append(record)
        self._held_bytes += size

    def _report_held(self) -> None:
        purged = KafkaError(KafkaError._PURGE_QUEUE)  # noqa: SLF001 - librdkafka's public name
        self._reports.extend((record, purged, -1) for record in self._held)
        self._held.clear()
        self._held_bytes = 0

    # The end of a producer, and its successor

    def _ends(self, error: KafkaError, others: AbstractSet[int]) -> bool:
        """Whether an error that produce() raised ends the producer: a fatal one, or one of `others`."""
        if not errors.is_fatal(error) and error.code() not in others:
            return False
        self._troubles.append(error)
        self._end(self._producer)
        return True

    def _end(self, raw: Producer | None) -> None:
        with self._lock:
            if raw is None or self._producer is not raw:
                return
            now = self._clock()
            if now - self._made_at >= WELL_SECONDS:
                self._backoff.reset()
            self._producer, self._dying = None, raw
            self._open = False
            self._dying_until = now + DRAIN_SECONDS
            self._replace_at = now + self._backoff.next_seconds()
            raw.purge(blocking=False)

    def _tend(self) -> None:
        """Drain the dead producer, make the next one when it is time, and give it what waits.

        Slow steps are done without the lock: whoever hands over records does not wait for them.
        """
        if self._closed or not self._tending.acquire(blocking=False):
            return  # another thread does it
        try:
            if self._dying is not None:
                self._see_off(self._dying)
            if self._dying is None:
                self._expire()
                if self._producer is None and self._clock() >= self._replace_at:
                    self._replace()
                while self._feed():
                    pass
        finally:
            self._tending.release()

    def _look_whether_cut_off(self) -> None:
        """Compare the producer with a new one if it has waited for Kafka in vain for a while."""
        now, raw = self._clock(), self._producer
        inside = 0 if raw is None else len(raw)
        written = self._accepted - self._failed - inside
        waits = inside > 0 or self._unanswered
        if raw is None or not waits or written > self._written:
            self._written = written if raw is not None else -inf
            self._patience_seconds = UNHEARD_SECONDS
            self._look_at = now + UNHEARD_SECONDS
        elif now >= self._look_at and not self._comparing:
            self._comparing = True
            self._patience_seconds = min(2 * self._patience_seconds, MAX_UNHEARD_SECONDS)
            self._look_at = now + self._patience_seconds
            try:
                Thread(target=self._compare, args=(raw,), name="flagpost-compare", daemon=True).start()
            except RuntimeError:  # there can be no more threads for now
                self._comparing = False

    def _compare(self, raw: Producer) -> None:
        """End a producer that does not reach Kafka although a new one does."""
        try:
            # With log_level 0 it does not log every error once more.
            self._compared = self._made(log_level=0)
            if reach.is_cut_off(raw, self._compared, self._topics[0]) and raw is self._producer:
                self._troubles.append(reach.CUT_OFF)
                self._end(raw)
        except KafkaException as error:
            self._troubles.append(error.args[0])
        finally:
            made, self._compared = [self._compared], None
            self._comparing = False
            reach.let_go(made.clear)

    def _see_off(self, raw: Producer) -> None:
        self._call(raw, raw.poll, 0.0)
        self._serve()
        with self._lock:
            if self._dying is not raw or (len(raw) and self._clock() < self._dying_until):
                return
            here = {*self._held, *self._returned}
            missing = [record for record in self._expected if record not in here]
            self.lost += max(0, len(raw) - len(missing))
            self._returned.extend(missing)
            self._dying = None
            self._held_bytes += sum(record.size_bytes for record in self._returned)
            self._held.extendleft(sorted(self._returned, key=_number, reverse=True))
            self._returned.clear()
        reach.let_go([raw].clear)  # it waits for librdkafka's threads

    def _expire(self) -> None:
        """Report what is too old to be written again."""
        oldest = self._clock() - self._limits.give_up_seconds
        timed_out = KafkaError(KafkaError._MSG_TIMED_OUT)  # noqa: SLF001 - librdkafka's public name
        with self._lock:
            while self._held and self._held[0].since < oldest:
                self._reports.append((self._unhold(), timed_out, -1))

    def _replace(self) -> None:
        try:
            made = self._new_producer()
        except KafkaException as error:
            self._troubles.append(error.args[0])
            self._replace_at = self._clock() + self._backoff.next_seconds()
            return
        with self._lock:
            if not self._closed:
                self._producer, self._made_at, self._recalled = made, self._clock(), False
                self._replaced = True

    def _feed(self) -> bool:
        """Hand over some of what waits, in order; the last one opens the direct way. False: no more for now."""
        with self._lock:
            if self._producer is None:
                return False
            for _ in range(FED_TOGETHER):
                if not self._held:
                    self._open = True
                    return False
                try:
                    if not self._pass_on(self._held[0]):
                        return False
                except BufferError:
                    return False
                except KafkaException as error:
                    self._reports.append((self._unhold(), error.args[0], -1))
                else:
                    self._unhold()
        return True

    def _unhold(self) -> ProducedRecord:
        record = self._held.popleft()
        self._held_bytes -= record.size_bytes
        return record

    def _new_producer(self) -> Producer:
        return self._made(error_cb=self._troubles.append)

    def _made(self, **more: object) -> Producer:
        """A producer with more properties. With `oauth_cb` librdkafka waits for a token."""
        return greenlets.call(lambda: self._make({**self._config, **more}, logger=self._logger))

    # Called by librdkafka. These callbacks only note: what they raise would be lost.

    def _call(self, raw: Producer, method: Callable[[float], int], seconds: float) -> None:
        """Call poll() or flush(), which may raise fatal errors."""
        try:
            greenlets.wait(method, seconds)
        except KafkaException as error:
            self._troubles.append(error.args[0])
            self._end(raw)

    def _handed_over_reported(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed += 1
            topic, value, key = message.topic() or "", message.value(), message.key()
            since = self._clock() - (message.latency() or 0.0)
            record = ProducedRecord(topic, value, key, self._on_failed, since, number=number)
            self._reports.append((record, error, -1))

    def _reported(self, record: ProducedRecord, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None or offset is None:
            self._failed += 1
            self._reports.append((record, error, -1))
            return
        record.partition = message.partition() or 0
        self._reports.append((record, error, offset))

    def _serve(self) -> None:
        while self._troubles:
            self._on_trouble(rights.named(self._troubles.popleft(), *self._needed))
        while self._reports:
            with self._lock:
                if self._reports:
                    self._report(*self._reports.popleft())

    def _report(self, record: ProducedRecord, error: KafkaError | None, offset: int) -> None:
        if error is not None:
            error = rights.named(error, rights.writes(record.topic))
        if error is not None and not self._closed and self._is_to_be_written_again(record, error):
            if error.code() in errors.RIGHTS_AND_TOPICS:
                self._on_trouble(error)
            self._returned.append(record)
            self._end(self._producer)
            return
        self._expected.pop(record, None)
        record.on_report(error, record, offset)

    def _is_to_be_written_again(self, record: ProducedRecord, error: KafkaError) -> bool:
        """Whether an error is about the producer, or about something to be set up, and not about the record."""
        code = error.code()
        if self._clock() - record.since >= self._limits.give_up_seconds:
            return False
        if code in errors.PURGED:
            return self._dying is not None or not self._recalled
        if code in errors.RIGHTS_AND_TOPICS:
            return self._dying is not None or self._is_patient(record)
        return code in errors.PRODUCERS or bool(error.fatal())

    def _is_patient(self, record: ProducedRecord) -> bool:
        """Whether a record came by `hand_over`: then it waits for rights and topics."""
        return record.on_report is self._on_failed


def _number(record: ProducedRecord) -> int:
    return record.number


def _numbers_to(
    report: Callable[[int, KafkaError | None, Message], None],
) -> Callable[[int], Callable[[KafkaError | None, Message], None]]:
    """Makes callbacks that also pass their number to `report`; partials would cost twice as much."""

    class Number(int):
        __slots__ = ()

        def __call__(self, error: KafkaError | None, message: Message) -> None:
            report(int(self), error, message)

    return Number


def _unheard(_: KafkaError | None, __: ProducedRecord, ___: int) -> None:
    """Used if nobody needs to know of failures."""
