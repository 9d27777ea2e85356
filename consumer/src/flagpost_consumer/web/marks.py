"""Where the topics end, asked for again and again in a thread of its own.

In: Kafka. Out: `Mark`: what the group has committed, and where the topics ended after that was asked. Whoever has
read up to a mark has seen the settlement of everything that the mark's commits cover, so what is missing then is
unexplained, and not only on its way to us.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from flagpost_consumer.adapters.topic_ids import read_topic_id
from flagpost_consumer.operator.kafka_admin import KafkaUnavailable
from flagpost_consumer.operator.topic_reading import Span, TopicReader
from flagpost_consumer.settings import KafkaSettings

log = structlog.get_logger(__name__)

MARK_SECONDS: Final = 1.0
TOPIC_ID_MARKS: Final = 15
"""At every so manieth mark it is asked whether the topic is the same still."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The topics at a moment."""

    at_ms: int
    """When it began to be asked for."""
    committed: Mapping[int, int]
    """By partition."""
    spans: Mapping[str, Mapping[int, Span]]
    """What the topics held afterwards, by topic and partition."""
    topic_id: str | None


class Marks:
    """Asks Kafka, at most once a second, and only after the last answer was taken."""

    def __init__(self, kafka: KafkaSettings, on_error: Callable[[str | None], object]) -> None:
        """`on_error` hears, in our thread, that Kafka does not answer, and why; None: it does again."""
        self._kafka = kafka
        self._on_error = on_error
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._told: queue.SimpleQueue[Mark] = queue.SimpleQueue()
        """One at most. (An attribute would be lost where it is set while the other thread clears it.)"""
        self._asked = 0
        self._topic_id: str | None = None
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join()

    def take(self) -> Mark | None:
        """The newest mark, if there is one that was not taken; the next is asked for then."""
        try:
            mark = self._told.get_nowait()
        except queue.Empty:
            return None
        self._wanted.set()
        return mark

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with TopicReader(self._kafka) as reader:
                    self._ask_on(reader)
            except KafkaUnavailable as error:
                self._on_error(str(error))
            except Exception as error:
                log.exception("asking where the topics end has failed in a way that is not foreseen")
                self._on_error(f"a defect: {type(error).__name__}; the log says more")
            self._stopped.wait(MARK_SECONDS)

    def _ask_on(self, reader: TopicReader) -> None:
        while True:
            self._wanted.wait()
            if self._stopped.is_set():
                return
            self._wanted.clear()
            try:
                self._told.put(self._ask(reader))
            except BaseException:
                self._wanted.set()
                raise
            self._on_error(None)
            self._stopped.wait(MARK_SECONDS)

    def _ask(self, reader: TopicReader) -> Mark:
        kafka, at_ms = self._kafka, time.time_ns() // 1_000_000
        if self._asked % TOPIC_ID_MARKS == 0:
            # librdkafka's own lines would go to stderr as they are.
            told = read_topic_id({**kafka.client_properties(), "log_level": 0}, kafka.topic)
            self._topic_id = told or self._topic_id
        self._asked += 1
        events = reader.spans(kafka.topic)
        committed = {number: each.offset for number, each in reader.committed(kafka.topic, events).items()}
        topics = (kafka.topic, kafka.ledger_topic, kafka.dead_letter_topic)
        spans = {topic: reader.spans(topic) for topic in topics}
        if kafka.impressions_topic is not None:
            spans[kafka.impressions_topic] = reader.spans_if_there(kafka.impressions_topic)
        return Mark(at_ms, committed, spans, self._topic_id)
