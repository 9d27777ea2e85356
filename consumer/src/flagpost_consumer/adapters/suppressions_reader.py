"""Reads the suppressions topic: all of it first, then what comes.

In: the topic. Out, on the event loop: the suppressed visitors once all that the topic held is read; each later
record; and whether the topic can be followed. Runs in a thread of its own with a consumer of its own, by assign().

A topic that does not exist suppresses nobody: that is told as "all read", and it is looked for again and again. A
topic that exists and cannot be read is waited for, as nobody can tell whom it names; and so is one that could be
read and cannot for `PATIENCE_SECONDS`. What is known is forgotten by no error: only a record takes a visitor back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.kafka_config import idle_topic_config
from flagpost_consumer.adapters.suppression_records import NoVisitor, read_suppression
from flagpost_consumer.adapters.topic_thread import TopicThread
from flagpost_consumer.core.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import rights
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
RETRY_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How often Kafka is asked where the topic ends, or whether there is one: an answer proves that it is followed."""
PATIENCE_SECONDS = 60.0
"""So long the topic may be out of reach before nothing is sent any more."""
SILENT_SECONDS = 20.0
"""After this time without anything of what the topic holds, a new client is tried."""
FULL_SECONDS = 30.0
"""After which time a topic that held too much is read again, from its beginning."""
POLL_SECONDS = 0.5
BATCH_MESSAGES = 1000
MISSING = KafkaError.UNKNOWN_TOPIC_OR_PART


class SuppressionsHandler(Protocol):
    """What the loop does with what is read. All of it is called on the loop."""

    def on_suppressions_known(self, known: Suppressions) -> None:
        """All that the topic held has been read."""

    def on_suppressions(self, suppressions: list[Suppression]) -> None:
        """Later records."""

    def on_suppressions_followed(self, trouble: str) -> None:
        """Whether the topic can be followed: empty, or why it cannot."""


class SuppressionsReader(TopicThread):
    """The suppressions topic, as one process reads it."""

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
        """The topic was made anew: what was read says nothing of where to read on."""
        self._is_to_be_read_over = threading.Event()
        """More came than fits: what is known is not all."""
        self._next: dict[int, int] = {}
        """The offset that is read next, by partition."""
        self._unread: Suppressions | None = Suppressions()
        """What has been read while not everything has; None: all has been told."""
        self._proved_at = monotonic()
        """When it was last seen that nothing is missing."""
        self._heard_at = monotonic()
        """When anything came of it."""
        self._trouble = ""
        self._is_missing = False

    def made_anew(self) -> None:
        """The topic is another one under its old name: it is read from its beginning, and what is known stays."""
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
                log.exception("the suppressions topic could not be read; it is tried again")
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
            consumer.close()

    def _begin_anew_if_asked(self) -> None:
        if self._is_to_be_read_over.is_set():
            self._unread = Suppressions()
        if self._is_asked:
            self._next.clear()
            self._is_another.clear()
            self._is_to_be_read_over.clear()

    @property
    def _is_asked(self) -> bool:
        """Whether the topic is to be read from its beginning."""
        return self._is_another.is_set() or self._is_to_be_read_over.is_set()

    def _ends(self, consumer: Consumer) -> dict[int, int] | None:
        """Where each partition ends; None: there is no such topic. What lies beyond its end is read anew."""
        found = consumer.list_topics(self._topic, timeout=CALL_SECONDS).topics[self._topic]
        if found.error is not None:
            if found.error.code() == MISSING:
                return None
            raise KafkaException(found.error)
        ends = {}
        for number in found.partitions:
            low, ends[number] = consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=CALL_SECONDS
            )
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
                # The client brings nothing although there is something: a new one may.
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "nothing comes of the topic"))  # noqa: SLF001 - its public name

    def _take(self, consumer: Consumer) -> bool:
        """Take in what comes; whether anything did. Raises KafkaException, TooManySuppressions."""
        first = consumer.poll(POLL_SECONDS)
        if first is None:
            return False
        suppressions: list[Suppression] = []
        try:
            for message in [first, *consumer.consume(BATCH_MESSAGES, 0)]:
                if (said := self._read(message)) is not None:
                    suppressions.append(said)  # noqa: PERF401 - what came before an error stays
        finally:
            self._hand_on(suppressions)
        return True

    def _hand_on(self, suppressions: list[Suppression]) -> None:
        if self._unread is not None:
            self._unread.take(suppressions)
        elif suppressions:
            self._tell(self._handler.on_suppressions, suppressions)

    def _read(self, message: Message) -> Suppression | None:
        """What a message says; None where it says nothing. Raises KafkaException."""
        error, number, offset = message.error(), message.partition(), message.offset()
        if rights.is_of_group(error):
            return None  # reading by assign() needs no right on the group
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
            raise KafkaException(error)
        assert number is not None and offset is not None  # noqa: PT018, S101 - of a message that came
        if error is not None:
            self._next[number] = offset
            return None
        self._next[number] = offset + 1
        try:
            return read_suppression(message.key(), message.value())
        except NoVisitor as problem:
            log.warning(
                "a record of the suppressions topic is passed over",
                partition=number,
                offset=offset,
                reason=str(problem),
            )
            return None

    # What is told

    def _prove_if_at(self, ends: Mapping[int, int]) -> None:
        """All that the topic held at a moment has been read, or not yet."""
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
        """There is no such topic: nobody is suppressed by it, and who was stays so."""
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
        """The topic cannot be read just now: told at once where not all has been read, else after a while."""
        is_late = self._monotonic() - self._proved_at > PATIENCE_SECONDS
        if trouble != self._trouble and (self._unread is not None or is_late):
            self._trouble = trouble
            log.error("who is suppressed is not known; nothing is sent until it is", reason=trouble)
            self._tell(self._handler.on_suppressions_followed, trouble)
