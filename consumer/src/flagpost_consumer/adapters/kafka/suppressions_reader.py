"""Reads the suppressions topic: first all of it, then new records.

In: the topic. Out, on the event loop: the suppressed visitors once everything that the topic held is read; each later
record; and whether the topic can be followed. Runs in its own thread with its own consumer, by assign().

A topic that does not exist suppresses nobody: this is reported as "all read", and it is looked for again and again. A
topic that exists but cannot be read is waited for, because it is unknown whom it names. The same holds for one that
was read before and cannot be read for `PATIENCE_SECONDS`. No error makes it forget a suppression: only a record ends
one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.kafka.config import idle_topic_config
from flagpost_consumer.adapters.kafka.log_bounds import bounds_of
from flagpost_consumer.adapters.kafka.suppression_records import NoVisitor, read_suppression
from flagpost_consumer.adapters.kafka.topic_thread import TopicThread
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import reach, rights
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
RETRY_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How often to ask Kafka where the topic ends, or whether it exists: an answer proves that it is followed."""
PATIENCE_SECONDS = 60.0
"""The topic may be unreachable this long before nothing is sent any more."""
SILENT_SECONDS = 20.0
"""After this time without any of the records that the topic has, try a new client."""
FULL_SECONDS = 30.0
"""When to read a topic that held too much again, from its beginning."""
POLL_SECONDS = 0.5
MISSING = KafkaError.UNKNOWN_TOPIC_OR_PART


class SuppressionsHandler(Protocol):
    """What the event loop does with what is read. All methods are called on the loop."""

    def on_suppressions_known(self, known: Suppressions) -> None:
        """Everything that the topic held has been read."""

    def on_suppressions(self, suppressions: list[Suppression]) -> None:
        """Later records."""

    def on_suppressions_followed(self, trouble: str) -> None:
        """Whether the topic can be followed: empty, or why it cannot."""


class SuppressionsReader(TopicThread):
    """One process's reader of the suppressions topic."""

    def __init__(
        self,
        kafka: KafkaSettings,
        handler: SuppressionsHandler,
        loop: asyncio.AbstractEventLoop,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("flagpost-suppressions", loop)
        self._kafka = kafka
        self._topic = kafka.suppressions_topic
        self._handler = handler
        self._monotonic = monotonic
        self._is_another = threading.Event()
        """Set if the topic was created anew: where to read on is unknown."""
        self._is_to_be_read_over = threading.Event()
        """Set if more came than fits: what is known is incomplete."""
        self._next: dict[int, int] = {}
        """The offset that is read next, by partition."""
        self._unread: Suppressions | None = Suppressions()
        """What has been read until everything has been; None: everything has been reported."""
        self._proved_at = monotonic()
        """When nothing was last known to be missing."""
        self._heard_at = monotonic()
        """When anything last came from the topic."""
        self._trouble = ""
        self._is_missing = False

    def made_anew(self) -> None:
        """The topic was created anew under its old name: read it from its beginning, and keep what is known."""
        self._is_another.set()

    def read_over(self) -> None:
        """What came last was more than fits: begin again with nothing known."""
        self._is_to_be_read_over.set()

    # The thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            pause = RETRY_SECONDS
            try:
                self._serve()
            except KafkaException as error:
                self._lack(f"{self._topic}: {rights.named(error.args[0], rights.reads(self._topic)).str()}")
            except TooManySuppressions as error:
                self._is_to_be_read_over.set()
                self._lack(str(error))
                pause = FULL_SECONDS
            except Exception as error:
                log.exception("the suppressions topic could not be read; it is retried")
                self._lack(f"reading failed ({type(error).__name__}); see the log")
            self._stopped.wait(pause)

    def _serve(self) -> None:
        """Read until there is a reason to begin with a new client. Raises KafkaException, TooManySuppressions."""
        self._begin_anew_if_asked()
        consumer = Consumer(idle_topic_config(self._kafka), logger=kafka_logger())
        try:
            while not (self._stopped.is_set() or self._is_asked):
                if (ends := self._ends(consumer)) is None:
                    self._missing()
                    self._stopped.wait(LOOK_SECONDS)
                else:
                    self._follow(consumer, ends)
        finally:
            reach.close(consumer, waits=self._stopped.is_set())

    def _begin_anew_if_asked(self) -> None:
        if self._is_to_be_read_over.is_set():
            self._unread = Suppressions()
        if self._is_asked:
            self._next.clear()
            self._is_another.clear()
            self._is_to_be_read_over.clear()

    @property
    def _is_asked(self) -> bool:
        """Whether to read the topic from its beginning."""
        return self._is_another.is_set() or self._is_to_be_read_over.is_set()

    def _ends(self, consumer: Consumer) -> dict[int, int] | None:
        """Where each partition ends; None: there is no such topic. A partition read beyond its end is read again."""
        found = consumer.list_topics(self._topic, timeout=CALL_SECONDS).topics[self._topic]
        if found.error is not None:
            if found.error.code() == MISSING:
                return None
            raise KafkaException(found.error)
        ends = {}
        for number, bounds in bounds_of(consumer, found, found.partitions, CALL_SECONDS).items():
            if isinstance(bounds, KafkaError):
                raise KafkaException(bounds)
            low, ends[number] = bounds
            at = self._next.get(number, low)
            self._next[number] = low if at > ends[number] else max(low, at)
        return ends

    def _follow(self, consumer: Consumer, ends: Mapping[int, int]) -> None:
        """Read on for as long as the topic stays as it is."""
        self._is_missing = False
        consumer.assign([TopicPartition(self._topic, number, self._next[number]) for number in ends])
        looked_at = self._heard_at = self._monotonic()
        self._prove_if_at(ends)
        while not (self._stopped.is_set() or self._is_asked):
            if self._take(consumer):
                self._heard_at = self._monotonic()
                self._prove_if_at(ends)
            if self._monotonic() - looked_at < LOOK_SECONDS:
                continue
            looked_at, before = self._monotonic(), dict(self._next)
            found = self._ends(consumer)
            if found is None or found.keys() != ends.keys() or self._next != before:
                return
            ends = found
            self._prove_if_at(ends)
            if self._monotonic() - max(self._proved_at, self._heard_at) > SILENT_SECONDS:
                # The client returns nothing although there is something: a new one may.
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no records arrive from the topic"))  # noqa: SLF001 - its public name

    def _take(self, consumer: Consumer) -> bool:
        """Take in what arrives; returns whether anything did. Raises KafkaException, TooManySuppressions."""
        suppressions: list[Suppression] = []
        has_come = False
        try:
            for message in self._came(consumer, POLL_SECONDS):
                has_come = True
                if (said := self._read(message)) is not None:
                    suppressions.append(said)
        finally:
            self._hand_on(suppressions)
        return has_come

    def _hand_on(self, suppressions: list[Suppression]) -> None:
        if self._unread is not None:
            self._unread.take(suppressions)
        elif suppressions:
            self._tell(self._handler.on_suppressions, suppressions)

    def _read(self, message: Message) -> Suppression | None:
        """Parse a message; None if it says nothing."""
        number, offset = message.partition(), message.offset()
        assert number is not None and offset is not None  # noqa: PT018, S101 - of a message that came
        if message.error() is not None:  # the end of the partition
            self._next[number] = offset
            return None
        self._next[number] = offset + 1
        try:
            return read_suppression(message.key(), message.value())
        except NoVisitor as problem:
            log.warning(
                "a record of the suppressions topic is skipped",
                partition=number,
                offset=offset,
                reason=str(problem),
            )
            return None

    # What is told

    def _prove_if_at(self, ends: Mapping[int, int]) -> None:
        """Note whether everything that the topic held at a moment has been read."""
        if any(self._next[number] < end for number, end in ends.items()):
            return
        self._proved_at = self._monotonic()
        if self._unread is not None:
            known, self._unread = self._unread, None
            log.info("the suppressions topic has been read", visitors=len(known))
            self._tell(self._handler.on_suppressions_known, known)
        if self._trouble:
            self._trouble = ""
            log.info("the suppressions topic is followed")
            self._tell(self._handler.on_suppressions_followed, "")

    def _missing(self) -> None:
        """There is no such topic: it suppresses nobody, and who was suppressed stays so."""
        if not self._is_missing:
            self._is_missing = True
            report = log.warning if self._unread is not None else log.error
            report(
                "there is no suppressions topic: nobody can be suppressed; run flagpost topics create",
                topic=self._topic,
            )
        self._next.clear()
        self._prove_if_at({})

    def _lack(self, trouble: str) -> None:
        """The topic cannot be read now: report it at once if not everything has been read, else after a while."""
        is_late = self._monotonic() - self._proved_at > PATIENCE_SECONDS
        if trouble != self._trouble and (self._unread is not None or is_late):
            self._trouble = trouble
            log.error("who is suppressed is not known; nothing is sent until it is", reason=trouble)
            self._tell(self._handler.on_suppressions_followed, trouble)
