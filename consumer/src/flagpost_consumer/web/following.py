"""Follows the topics in a thread of its own, as a Kafka client that is in no group.

In: settings. Out: `Following.state`: the newest `View`, how far the reading is, and what is wrong. A reading begins
at a moment that fits the window and the memory, and goes on until that moment is too long ago, it takes too much
memory, or the topic is another one under its old name; then a new one begins, and the last view is shown until it has
caught up. Where Kafka goes away, it goes on where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import structlog
from confluent_kafka import Message

from flagpost_consumer.adapters.schema_registry import RegistryNotAnswering
from flagpost_consumer.operator.dead_letters.records import read_message
from flagpost_consumer.operator.kafka_admin import KafkaUnavailable
from flagpost_consumer.operator.reconciliation.extent import ExtentFinder, Spans, Window
from flagpost_consumer.operator.reconciliation.planning import Planning
from flagpost_consumer.operator.reconciliation.settled import LaterRelease
from flagpost_consumer.operator.reconciliation.topics import are_of
from flagpost_consumer.operator.topic_reading import Span, TopicReader
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates, View
from flagpost_consumer.web.marks import Mark, Marks
from flagpost_schemas import UndecodableRecord, UnknownSchema, decode_settlements

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 2.0
VIEW_SHARE: Final = 10
"""To make a view may take a tenth of the time, however many flags there are."""
LONGER: Final = 1.25
"""By how much the window may grow beyond what was asked for before it begins anew."""

Places = dict[tuple[str, int], int]
"""By topic and partition: the next offset."""


@dataclass(frozen=True, slots=True)
class State:
    """What the page is made of."""

    view: View | None = None
    """None: nothing has been read to its end yet."""
    read: float = 0.0
    """How much of what was there at the beginning has been read, up to 1."""
    wrong: str | None = None
    """What keeps it from going on, for people."""
    damaged: int = 0
    """Records of the ledger that cannot be read."""


class _BeginsAnew(Exception):  # noqa: N818 (no error: the end of a reading)
    """A reading has come to its end."""


class Following:
    """The thread that reads."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read yet."""
        self._settings = settings
        self._stopped = threading.Event()
        self._marks = Marks(settings.kafka, lambda wrong: self._tell_wrong(of_ends=wrong))
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._lock = threading.Lock()
        self._state = State()
        self._wrong: dict[str, str | None] = {}
        """What keeps the reading, and the asking for ends, from going on."""
        self._next_view_at = 0.0
        self._share = 1.0
        """Of the window that is read, where all of it takes too much memory."""

    @property
    def state(self) -> State:
        """How it stands now; any thread may ask."""
        return self._state

    def start(self) -> None:
        """Begin to read."""
        self._marks.start()
        self._thread.start()

    def stop(self) -> None:
        """Read no more; waits for the thread."""
        self._stopped.set()
        self._marks.stop()
        self._thread.join()

    def _tell(self, **changes: object) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)  # type: ignore[arg-type]

    def _tell_wrong(self, **wrong: str | None) -> None:
        with self._lock:
            self._wrong |= wrong
            told = next(filter(None, self._wrong.values()), None)
            self._state = replace(self._state, wrong=told)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read_once()
            except _BeginsAnew as why:
                log.info("the window is read anew", why=str(why))
            except (KafkaUnavailable, RegistryNotAnswering, UnknownSchema, LaterRelease) as error:
                self._tell_wrong(of_reading=str(error))
                self._stopped.wait(RETRY_SECONDS)
            except Exception as error:
                log.exception("the reading has failed in a way that is not foreseen")
                self._tell_wrong(of_reading=f"a defect: {type(error).__name__}; the log says more")
                self._stopped.wait(RETRY_SECONDS)

    def _read_once(self) -> None:
        mark = self._next_mark()
        if mark is None:
            return
        self._tell(read=0.0, damaged=0)
        with TopicReader(self._settings.kafka) as reader:
            reading = Reading(self._settings, mark, reader, self._share)
        while not self._stopped.is_set():
            try:
                with TopicReader(self._settings.kafka) as reader:
                    self._follow(reading, reader)
            except KafkaUnavailable as error:
                self._tell_wrong(of_reading=str(error))
                self._stopped.wait(RETRY_SECONDS)

    def _next_mark(self) -> Mark | None:
        while not self._stopped.is_set():
            mark = self._marks.take()
            if mark is not None:
                return mark
            self._stopped.wait(0.05)
        return None

    def _follow(self, reading: Reading, reader: TopicReader) -> None:
        for message in reader.follow(reading.topics()):
            if message is not None:
                reading.take(message)
            elif self._stopped.is_set():
                return
            else:
                self._look(reading, reader)

    def _look(self, reading: Reading, reader: TopicReader) -> None:
        self._tell_wrong(of_reading=None)
        reading.see_ends(reader.ends_seen())
        if reading.bytes_held > self._settings.web.max_bytes:
            self._share = reading.share / 2
            raise _BeginsAnew("it would take more than web.max_bytes")
        if reading.is_reached():
            began = time.monotonic()
            self._tell(view=reading.view(), read=1.0, damaged=reading.damaged)
            self._next_view_at = began + VIEW_SHARE * (time.monotonic() - began)
            if reading.is_too_long():
                self._share = 1.0
                raise _BeginsAnew("it is longer than web.window_seconds")
            reading.mark = None
        elif self._state.read < 1.0:
            self._tell(read=min(reading.share_read(), 0.999), damaged=reading.damaged)
        if reading.mark is None and time.monotonic() >= self._next_view_at:
            mark = self._marks.take()
            if mark is not None:
                reading.mark_by(mark)


class Reading:
    """One reading of the topics, from a moment on."""

    def __init__(self, settings: Settings, mark: Mark, reader: TopicReader, share: float) -> None:
        """`share`: of the window, how much of it is read."""
        self.mark: Mark | None = mark
        self.damaged = 0
        self._kafka, self._window_ms = settings.kafka, int(settings.web.window_seconds * 1000)
        self._topic_id = mark.topic_id
        self._planning = Planning(settings)
        asked_ms = max(0, mark.at_ms - int(self._window_ms * share))
        extent = ExtentFinder(reader, settings).find(Window(asked_ms))
        self._places = {
            **_firsts(self._kafka.topic, extent.events),
            **_firsts(self._kafka.ledger_topic, extent.ledger),
            **_firsts(self._kafka.dead_letter_topic, extent.dead_letters),
        }
        since_ms = asked_ms if extent.covered_ms is None else extent.covered_ms
        if self._kafka.impressions_topic is not None:
            self._places |= _reports(reader, self._kafka.impressions_topic, mark, since_ms)
        self._first = dict(self._places)
        self._ends = _ends(mark)
        self._aggregates = Aggregates(since_ms, mark.at_ms, settings)
        self._commit(mark)

    @property
    def bytes_held(self) -> int:
        """About what it takes of memory."""
        return self._aggregates.bytes_held

    @property
    def share(self) -> float:
        """How much of the window it has become."""
        return min(1.0, (time.time_ns() // 1_000_000 - self._aggregates.since_ms) / self._window_ms)

    def topics(self) -> Mapping[str, Mapping[int, int]]:
        """Where to read on."""
        found: dict[str, dict[int, int]] = {}
        for (topic, number), offset in self._places.items():
            found.setdefault(topic, {})[number] = offset
        return found

    def take(self, message: Message) -> None:
        """Count a message."""
        topic, number = cast("str", message.topic()), cast("int", message.partition())
        offset = cast("int", message.offset())
        if offset < self._places[topic, number]:
            raise _BeginsAnew(f"{topic} went back")
        if topic == self._kafka.topic:
            self._aggregates.publish(self._planning.published(message), message.timestamp()[1])
        elif topic == self._kafka.ledger_topic:
            self._settle(number, message)
        elif topic == self._kafka.impressions_topic:
            self._aggregates.report(message.value())
        else:
            self._aggregates.letter(read_message(message), message.value())
        self._places[topic, number] = offset + 1

    def see_ends(self, ends: Places) -> None:
        """Partitions end there, whatever the last message's offset was."""
        for place, end in ends.items():
            self._places[place] = max(self._places[place], end)

    def is_reached(self) -> bool:
        """Whether all is counted that was there at the mark."""
        return self.mark is not None and all(
            self._places[place] >= end for place, end in self._ends.items() if place in self._places
        )

    def share_read(self) -> float:
        """Of what was there at the mark, how much is counted."""
        whole = sum(max(0, end - self._first[place]) for place, end in self._ends.items())
        left = sum(max(0, end - self._places[place]) for place, end in self._ends.items())
        return 1.0 if whole == 0 else 1 - left / whole

    def mark_by(self, mark: Mark) -> None:
        """Read up to this mark next. Raises where the topic is another one."""
        if mark.topic_id != self._topic_id and None not in (mark.topic_id, self._topic_id):
            raise _BeginsAnew("the events topic was made anew")
        ends = _ends(mark)
        if ends.keys() != self._places.keys():
            raise _BeginsAnew("the topics have other partitions than before")
        if any(end < self._places[place] for place, end in ends.items()):
            raise _BeginsAnew("a topic went back")
        self.mark, self._ends = mark, ends

    def view(self) -> View:
        """How it stands; all up to the mark is counted."""
        mark = cast("Mark", self.mark)
        self._commit(mark)
        return self._aggregates.view(mark.at_ms)

    def is_too_long(self) -> bool:
        """Whether it began too long ago."""
        return (
            self.mark is not None and self.mark.at_ms - self._aggregates.since_ms > LONGER * self._window_ms
        )

    def _commit(self, mark: Mark) -> None:
        spans: Mapping[int, Span] = mark.spans[self._kafka.topic]
        for number, offset in mark.committed.items():
            self._aggregates.commit(number, offset, spans[number].first)

    def _settle(self, number: int, message: Message) -> None:
        """What another group, or another topic of the same name, was told is none of ours."""
        try:
            settlements = decode_settlements(message.value())
        except UndecodableRecord:
            self.damaged += 1
            return
        if are_of(settlements, self._kafka.group_id, self._topic_id):
            self._aggregates.settle(number, settlements)


def _firsts(topic: str, spans: Spans) -> Places:
    return {(topic, number): span.first for number, span in spans.items()}


def _reports(reader: TopicReader, topic: str, mark: Mark, since_ms: int) -> Places:
    """Where the reports of impressions begin that were written since."""
    return _firsts(topic, reader.within(topic, mark.spans[topic], since_ms))


def _ends(mark: Mark) -> Places:
    return {
        (topic, number): span.end for topic, spans in mark.spans.items() for number, span in spans.items()
    }
