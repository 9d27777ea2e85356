"""Follows the topics in its own thread, as a Kafka client outside of any group.

In: settings. Out: `Following.state`: the newest `View`, the progress of reading, and what is wrong. A reading begins
at a moment that fits the window and the memory. It goes on until that moment is too long ago, it takes too much
memory, or a topic was created anew; then a new reading begins, and the last view is shown until it has caught up. If
Kafka is unreachable, reading resumes where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import structlog
from confluent_kafka import Message

from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.commands.dead_letters.records import read_message
from flagpost_consumer.commands.reconcile.extent import ExtentFinder, Spans, Window
from flagpost_consumer.commands.reconcile.own_settlements import OwnSettlements, TopicUnknown
from flagpost_consumer.commands.reconcile.planning import Planning
from flagpost_consumer.commands.reconcile.settled import LaterRelease
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates, View
from flagpost_consumer.web.beats import Beats
from flagpost_consumer.web.marks import Mark, Marks
from flagpost_schemas import UndecodableRecord, UnknownSchema, decode_settlements

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 2.0
VIEW_SHARE: Final = 10
"""Making views may take a tenth of the time, however many flags there are."""
FITS: Final = 0.6
"""When the events take too much memory, the window begins again with this part of them, and grows from there."""
LONGER: Final = 1.25
"""How much longer than requested the window may become before it begins again."""

Places = dict[tuple[str, int], int]
"""By topic and partition: the next offset."""


@dataclass(frozen=True, slots=True)
class State:
    """The state that the page shows."""

    view: View | None = None
    """None: nothing has been read completely yet."""
    read: float = 0.0
    """How much has been read of the records that existed at the beginning, 0 to 1."""
    wrong: str | None = None
    """Why reading has stopped, for people."""
    damaged: int = 0
    """Ledger records that cannot be read."""
    shortened: bool = False
    """Whether the window is shorter than requested, because all of it takes too much memory."""


class BeginsAnew(Exception):  # noqa: N818 (no error: the end of a reading)
    """A reading has ended, and a new one has to begin."""


class Following:
    """The thread that reads."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read before `start`."""
        self._settings = settings
        self._stopped = threading.Event()
        self._marks = Marks(settings.kafka, lambda wrong: self._tell_wrong(of_ends=wrong))
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._beats = Beats()
        self._lock = threading.Lock()
        self._state = State()
        self._wrong: dict[str, str | None] = {}
        """Why reading, or asking for ends, has stopped."""
        self._next_view_at = 0.0
        self._most: int | None = None
        """The number of events to read, if the whole window takes too much memory."""

    @property
    def state(self) -> State:
        """The present state; any thread may ask."""
        return self._state

    @property
    def still_seconds(self) -> float:
        """How long one of its threads has stood still; any thread may ask."""
        return max(self._beats.still_seconds, self._marks.beats.still_seconds)

    def start(self) -> None:
        """Start reading."""
        self._marks.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; waits for the thread."""
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
            except BeginsAnew as why:
                log.info("the window is read again", why=str(why))
            except (KafkaUnavailable, RegistryNotAnswering, UnknownSchema, LaterRelease) as error:
                self._tell_wrong(of_reading=str(error))
                self._stopped.wait(RETRY_SECONDS)
            except Exception as error:
                log.exception("the reading has failed unexpectedly")
                self._tell_wrong(
                    of_reading=f"a defect in Flagpost: {type(error).__name__}; the log has details"
                )
                self._stopped.wait(RETRY_SECONDS)

    def _read_once(self) -> None:
        mark = self._next_mark()
        if mark is None:
            return
        self._tell(read=0.0, damaged=0)
        with self._reader() as reader:
            reading = Reading(self._settings, mark, reader, self._most)
        while not self._stopped.is_set():
            try:
                with self._reader() as reader:
                    self._follow(reading, reader)
            except TopicUnknown:  # only a new reading takes an id that Kafka tells meanwhile
                raise
            except KafkaUnavailable as error:
                self._tell_wrong(of_reading=str(error))
                self._stopped.wait(RETRY_SECONDS)

    def _reader(self) -> TopicReader:
        return TopicReader(self._settings.kafka, self._beats.beat)

    def _next_mark(self) -> Mark | None:
        while not self._stopped.is_set():
            self._beats.beat()
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
            self._most = int(FITS * reading.events)
            raise BeginsAnew("it would take more than web.max_bytes")
        if reading.is_reached():
            began = time.monotonic()
            self._tell(view=reading.view(), read=1.0, damaged=reading.damaged, shortened=reading.is_shortened)
            self._next_view_at = began + VIEW_SHARE * (time.monotonic() - began)
            if reading.is_too_long():
                self._most = None
                raise BeginsAnew("it is longer than web.window_seconds")
            reading.mark = None
        elif self._state.read < 1.0:
            self._tell(read=min(reading.share_read(), 0.999), damaged=reading.damaged)
        if reading.mark is None and time.monotonic() >= self._next_view_at:
            mark = self._marks.take()
            if mark is not None:
                reading.mark_by(mark)


class Reading:
    """One reading of the topics, from a moment on."""

    def __init__(self, settings: Settings, mark: Mark, reader: TopicReader, most: int | None) -> None:
        """`most`: how many events may be read; None: all of the window's."""
        self.mark: Mark | None = mark
        self.damaged = 0
        self._kafka, self._window_ms = settings.kafka, int(settings.web.window_seconds * 1000)
        self._own = OwnSettlements(self._kafka, mark.topic_id)
        self._planning = Planning(settings)
        asked_ms = max(0, mark.at_ms - self._window_ms)
        self._is_part = most is not None
        if most is not None:
            asked_ms = _begin(reader, self._kafka.topic, mark, asked_ms, most)
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
        self._were_there = self._ends
        """The least that the end of each partition can be in the next mark."""
        self._aggregates = Aggregates(since_ms, mark.at_ms, settings)
        self._commit(mark)

    @property
    def bytes_held(self) -> int:
        """Approximate bytes in memory."""
        return self._aggregates.bytes_held

    @property
    def events(self) -> int:
        """How many offsets of the events topic have been read."""
        topic = self._kafka.topic
        return sum(at - self._first[place] for place, at in self._places.items() if place[0] == topic)

    @property
    def is_shortened(self) -> bool:
        """Whether it began later than requested, and has not become as long since."""
        age_ms = time.time_ns() // 1_000_000 - self._aggregates.since_ms
        return self._is_part and age_ms < self._window_ms

    def topics(self) -> Mapping[str, Mapping[int, int]]:
        """The next offset to read, by topic and partition."""
        found: dict[str, dict[int, int]] = {}
        for (topic, number), offset in self._places.items():
            found.setdefault(topic, {})[number] = offset
        return found

    def take(self, message: Message) -> None:
        """Count a message."""
        topic, number = cast("str", message.topic()), cast("int", message.partition())
        offset = cast("int", message.offset())
        if offset < self._places[topic, number]:
            raise BeginsAnew(f"{topic} went back")
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
        """Note the ends of partitions: their last offsets may hold no message."""
        for place, end in ends.items():
            self._places[place] = max(self._places[place], end)

    def is_reached(self) -> bool:
        """Whether everything up to the mark is counted."""
        return self.mark is not None and all(
            self._places[place] >= end for place, end in self._ends.items() if place in self._places
        )

    def share_read(self) -> float:
        """How much is counted of the records that existed at the mark, 0 to 1."""
        whole = sum(max(0, end - self._first[place]) for place, end in self._ends.items())
        left = sum(max(0, end - self._places[place]) for place, end in self._ends.items())
        return 1.0 if whole == 0 else 1 - left / whole

    def mark_by(self, mark: Mark) -> None:
        """Read up to this mark next, which `Marks.take` has just given; the reading may have passed it already.

        Raises:
            BeginsAnew: a topic was created anew, or has lost records at its end.
        """
        if not self._own.agree(mark.topic_id):
            raise BeginsAnew("the events topic was created again")
        ends = _ends(mark)
        if ends.keys() != self._places.keys():
            raise BeginsAnew("the topics have other partitions than before")
        if any(end < self._were_there[place] for place, end in ends.items()):
            raise BeginsAnew("a topic went back")
        self.mark, self._ends = mark, ends
        self._were_there = {place: max(end, self._places[place]) for place, end in ends.items()}

    def view(self) -> View:
        """The present view; everything up to the mark is counted."""
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
        """Count a ledger record, unless it is about another group or another topic of the same name."""
        try:
            settlements = decode_settlements(message.value())
        except UndecodableRecord:
            self.damaged += 1
            return
        if self._own.include(settlements):
            self._aggregates.settle(number, settlements)


def _begin(reader: TopicReader, topic: str, mark: Mark, first_ms: int, most: int) -> int:
    """The moment, to the second, after which the topic has at most this many events."""
    spans, last_ms = mark.spans[topic], mark.at_ms
    while last_ms - first_ms > 1000:
        middle_ms = (first_ms + last_ms) // 2
        if sum(map(len, reader.within(topic, spans, middle_ms).values())) <= most:
            last_ms = middle_ms
        else:
            first_ms = middle_ms
    return last_ms


def _firsts(topic: str, spans: Spans) -> Places:
    return {(topic, number): span.first for number, span in spans.items()}


def _reports(reader: TopicReader, topic: str, mark: Mark, since_ms: int) -> Places:
    """Where the reports of impressions begin that were written since a moment."""
    return _firsts(topic, reader.within(topic, mark.spans[topic], since_ms))


def _ends(mark: Mark) -> Places:
    return {
        (topic, number): span.end for topic, spans in mark.spans.items() for number, span in spans.items()
    }
