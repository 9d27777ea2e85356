"""Asks for the ends of the topics again and again, in its own thread.

In: Kafka. Out: `Mark`: what the group has committed, and where the topics ended after that. A reader that
has read up to a mark has seen the settlement of everything that the mark's commits cover, so what is missing then is
unexplained, not only late.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from flagpost_consumer.commands.reconcile.own_settlements import present_topic_id
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_consumer.web.beats import Beats

log = structlog.get_logger(__name__)

MARK_SECONDS: Final = 1.0
TOPIC_ID_MARKS: Final = 15
"""How often to check that the topic is still the same: every 15 marks."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The topics at a moment."""

    at_ms: int
    """When asking for it began."""
    committed: Mapping[int, int]
    """By partition."""
    spans: Mapping[str, Mapping[int, Span]]
    """What the topics held afterwards, by topic and partition."""
    topic_id: str | None


class Marks:
    """Asks Kafka, at most once a second, and only after the last answer was taken."""

    def __init__(self, kafka: KafkaSettings, on_error: Callable[[str | None], object]) -> None:
        """`on_error` is called in our thread with why Kafka does not answer; None: it answers again."""
        self._kafka = kafka
        self._on_error = on_error
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._told: queue.SimpleQueue[Mark] = queue.SimpleQueue()
        """At most one. (An attribute could be lost if one thread sets it while the other clears it.)"""
        self._asked = 0
        self._topic_id: str | None = None
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)
        self.beats = Beats()

    def start(self) -> None:
        """Start asking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join()

    def take(self) -> Mark | None:
        """The newest mark, if it was not taken yet; then the next is asked for."""
        try:
            mark = self._told.get_nowait()
        except queue.Empty:
            return None
        self._wanted.set()
        return mark

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.beats.beat()
            try:
                with TopicReader(self._kafka, self.beats.beat) as reader:
                    self._ask_on(reader)
            except KafkaUnavailable as error:
                self._on_error(str(error))
            except Exception as error:
                log.exception("asking where the topics end has failed unexpectedly")
                self._on_error(f"a defect in Flagpost: {type(error).__name__}; the log has details")
            self._stopped.wait(MARK_SECONDS)

    def _ask_on(self, reader: TopicReader) -> None:
        while True:
            while not self._wanted.wait(MARK_SECONDS):
                self.beats.beat()
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
            self._topic_id = present_topic_id(kafka) or self._topic_id
        self._asked += 1
        events = reader.spans(kafka.topic)
        committed = {number: each.offset for number, each in reader.committed(kafka.topic, events).items()}
        topics = (kafka.topic, kafka.ledger_topic, kafka.dead_letter_topic)
        spans = {topic: reader.spans(topic) for topic in topics}
        if kafka.impressions_topic is not None:
            spans[kafka.impressions_topic] = reader.spans_if_there(kafka.impressions_topic)
        return Mark(at_ms, committed, spans, self._topic_id)
