"""Reads stretches of a topic for operators' commands, without joining a group.

In: the `kafka` section, a topic, offsets. Out: messages, with partitions mixed; watermarks, offsets by time, a
group's commits. Only committed records are read (read_committed). Calls block; if Kafka does not answer they raise
KafkaUnavailable with the reason in a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin._metadata import TopicMetadata

from flagpost_consumer.adapters.kafka.config import stretch_config
from flagpost_consumer.commands.sources.kafka_admin import CALL_SECONDS, KafkaUnavailable, unavailable
from flagpost_consumer.commands.sources.kafka_clients import silent_client
from flagpost_consumer.settings import KafkaSettings
from flagpost_consumer.terminal.patience import Patience
from flagpost_kafka import errors, reach, rights
from flagpost_kafka.rights import Operation, Resource, Right

BATCH_MESSAGES = 500
POLL_SECONDS = 0.2
GROUP_SECONDS = 1.0
"""After this long without an answer of the group, look for a reason."""
AGAIN_SECONDS = 0.2
"""How long until a question is asked again that nobody could answer yet."""
LEAST_CALL_SECONDS = 1.0
"""The time-out of the last question, however little time is left."""
SILENT_SECONDS = 30.0
"""How long to wait while nothing comes although something is expected."""
TOLD_SECONDS = 3.0
"""When to report that nothing comes."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: from `first` to just before `end`."""

    first: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.first)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed for one partition."""

    offset: int
    metadata: str


class TopicReader:
    """One connection for reading; a context manager. Not thread-safe."""

    def __init__(self, kafka: KafkaSettings, beat: Callable[[], object] = lambda: None) -> None:
        """`kafka.group_id`: the group whose commits `committed` returns; it is not joined.

        `beat` is called before each call of Kafka's client, none of which blocks for long.

        Raises:
            SettingsError: librdkafka refuses a property.
        """
        self._servers = kafka.bootstrap_servers or ""
        self._group = kafka.group_id
        self._beat = beat
        self._last_error = ""
        self._patience = Patience(self._servers, self._heard)
        self._ends_seen: dict[tuple[str, int], int] = {}
        self._said_of_group: KafkaError | None = None
        """That this user may not see the group; librdkafka reports it only once."""
        self._config = {**stretch_config(kafka), "error_cb": self._remember}
        self._consumer = silent_client(Consumer, self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._patience.has_left_a_call:
            reach.close(self._consumer, waits=kind is None)

    def spans(self, topic: str) -> dict[int, Span]:
        """What each partition of `topic` holds now."""
        return self._spans(topic, self._look(topic))

    def spans_if_there(self, topic: str) -> dict[int, Span]:
        """The same; empty if there is no such topic."""
        found = self._look(topic)
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return {}
        return self._spans(topic, found)

    def first_at(self, topic: str, time_ms: int, spans: Mapping[int, Span]) -> dict[int, int]:
        """The first offset of each partition whose record was produced at `time_ms` (epoch ms) or later."""
        found = self._offsets(topic, spans, time_ms)
        return {number: offset if offset >= 0 else spans[number].end for number, offset in found.items()}

    def within(
        self, topic: str, spans: Mapping[int, Span], since_ms: int | None, until_ms: int | None = None
    ) -> dict[int, Span]:
        """The part of these stretches that was produced from `since_ms` to before `until_ms` (epoch ms); None: no
        bound.

        So consecutive windows share no record and leave none out, however publishers' clocks differ.
        """
        first = {number: span.first for number, span in spans.items()}
        end = {number: span.end for number, span in spans.items()}
        if since_ms is not None:
            first = self.first_at(topic, since_ms, spans)
        if until_ms is not None:
            end = self.first_at(topic, until_ms, spans)
        return {
            number: Span(max(span.first, first[number]), min(span.end, end[number]))
            for number, span in spans.items()
        }

    def committed(self, topic: str, partitions: Mapping[int, object]) -> dict[int, Committed]:
        """The group's commits; a partition without one is left out."""
        asked = [TopicPartition(topic, number) for number in partitions]
        right = Right(Operation.DESCRIBE, Resource.GROUP, self._group)
        answers = self._ask(_passing(partial(self._told_of_group, asked)), right)
        self._check(answers, rights.reads(topic))
        return {
            each.partition: Committed(each.offset, each.metadata or "")
            for each in answers
            if each.offset >= 0
        }

    def read(self, topic: str, spans: Mapping[int, Span]) -> Iterator[Message]:
        """The messages of these stretches, each partition's in order.

        A stretch may have fewer messages than offsets (transactions, retention). If its beginning is gone, it begins
        at the oldest remaining offset.
        """
        open_spans = {number: span for number, span in spans.items() if len(span)}
        if not open_spans:
            return
        self._consumer.assign(
            [TopicPartition(topic, number, max(span.first, 0)) for number, span in open_spans.items()]
        )
        try:
            yield from self._until_ends(topic, {number: span.end for number, span in open_spans.items()})
        finally:
            with suppress(RuntimeError):  # whoever stops early may have closed the reader already
                self._consumer.unassign()

    def follow(self, topics: Mapping[str, Mapping[int, int]]) -> Iterator[Message | None]:
        """The messages of topics from these offsets on, without end; None after each batch, and when none came."""
        places = {
            (topic, number): offset for topic, first in topics.items() for number, offset in first.items()
        }
        self._assign(places)
        heard_at = time.monotonic()
        while True:
            messages = self._next_batch()
            places |= {(m.topic() or "", m.partition() or 0): (m.offset() or 0) + 1 for m in messages}
            yield from messages
            yield None
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENT_SECONDS:
                heard_at = time.monotonic()
                self._renew_if_cut_off(next(iter(topics)), places)

    def _assign(self, places: Mapping[tuple[str, int], int]) -> None:
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])

    def _renew_if_cut_off(self, topic: str, places: Mapping[tuple[str, int], int]) -> None:
        """Read on with a new client if Kafka does not answer this one: it may have lost its brokers."""
        self._beat()
        if not reach.answers(self._consumer, topic, LEAST_CALL_SECONDS):
            reach.let_go(self._consumer.close)
            self._consumer = silent_client(Consumer, self._config)
            self._assign(places)

    def ends_seen(self) -> dict[tuple[str, int], int]:
        """The partitions' ends in what `follow` returned up to its last None: the last message may be before
        the end.
        """
        return dict(self._ends_seen)

    def _told_of_group(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        """The group's commits. If this user may not see them, librdkafka reports it separately, and the call only
        times out.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                answers: list[TopicPartition] = self._consumer.committed(asked, timeout=GROUP_SECONDS)
            except KafkaException as error:
                beside = self._consumer.poll(0)
                said = self._said_of_group if beside is None else beside.error()
                if said is not None:
                    raise KafkaException(said) from None
                if not _has_timed_out(error) or time.monotonic() > deadline:
                    raise
            else:
                return answers

    def _check(self, answers: Iterable[TopicPartition], needed: Right) -> None:
        for answer in answers:
            if answer.error is not None:
                raise self._unavailable(answer.error, needed)

    def _until_ends(self, topic: str, ends: dict[int, int]) -> Iterator[Message]:
        heard_at = time.monotonic()
        while ends:
            messages = self._consume()
            silent_seconds = time.monotonic() - heard_at
            if messages:
                heard_at = time.monotonic()
            elif silent_seconds > SILENT_SECONDS:
                raise self._unavailable(_silent(topic))
            elif silent_seconds > TOLD_SECONDS:
                self._patience.say(f"for up to {SILENT_SECONDS:g} s, for records of {topic},")
            for message in messages:
                is_end = self._is_end(topic, message)
                number, offset = message.partition(), message.offset()
                assert number is not None and offset is not None  # noqa: PT018, S101 - of a message that came
                if number not in ends:
                    continue
                if not is_end and offset < ends[number]:
                    yield message
                if is_end or offset >= ends[number] - 1:
                    del ends[number]

    def _is_end(self, topic: str, message: Message) -> bool:
        """Whether this is the end of the partition. Raises KafkaUnavailable for any other error."""
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
            return True
        raise self._unavailable(error, rights.reads(topic))

    def _next_batch(self) -> list[Message]:
        messages, ends = [], {}
        for message in self._consume():
            topic = message.topic() or ""
            if not self._is_end(topic, message):
                messages.append(message)
            elif (number := message.partition()) is not None:
                ends[topic, number] = message.offset() or 0
        self._ends_seen |= ends
        return messages

    def _consume(self) -> list[Message]:
        """What came, without errors about the group: reading by assign() needs no right to it."""
        found = []
        self._beat()
        for message in self._consumer.consume(BATCH_MESSAGES, POLL_SECONDS):
            if rights.is_of_group(message.error()):
                self._said_of_group = message.error()
            else:
                found.append(message)
        return found

    def _look(self, topic: str) -> TopicMetadata:
        return self._ask(partial(self._topic, topic))

    def _topic(self, topic: str, timeout: float) -> TopicMetadata:
        found: TopicMetadata = self._consumer.list_topics(topic, timeout=timeout).topics[topic]
        if found.error is not None and found.error.code() in errors.PASSING:
            raise KafkaException(found.error)
        return found

    def _spans(self, topic: str, found: TopicMetadata) -> dict[int, Span]:
        if found.error is not None and found.error.code() in errors.NO_TOPIC:
            raise KafkaUnavailable(errors.of_topic(found.error, rights.reads(topic)))
        if found.error is not None:
            raise self._unavailable(found.error, rights.reads(topic))
        numbers = sorted(found.partitions)
        low = self._offsets(topic, numbers, OFFSET_BEGINNING)
        high = self._offsets(topic, numbers, OFFSET_END)
        return {number: Span(low[number], high[number]) for number in numbers}

    def _offsets(self, topic: str, numbers: Iterable[int], time_ms: int) -> dict[int, int]:
        """For each partition the first offset from a time on; or its first or last one, for which Kafka has special
        times. One request to each broker, however many partitions there are.
        """
        asked = [TopicPartition(topic, number, time_ms) for number in numbers]
        if not asked:  # librdkafka refuses an empty question
            return {}
        answers = self._ask(_passing(partial(self._consumer.offsets_for_times, asked)))
        self._check(answers, rights.reads(topic))
        return {each.partition: each.offset for each in answers}

    def _ask(self, call: Callable[..., Result], *needed: Right) -> Result:
        """Kafka's answer. It is asked again as long as a partition or the group has no leader, or a new one."""
        left, deadline = CALL_SECONDS, time.monotonic() + CALL_SECONDS
        while True:
            self._beat()
            try:
                return self._patience.ask(call, left)
            except KafkaException as error:
                if error.args[0].code() not in errors.PASSING or time.monotonic() > deadline:
                    raise self._unavailable(error.args[0], *needed) from None
            time.sleep(AGAIN_SECONDS)
            left = max(LEAST_CALL_SECONDS, deadline - time.monotonic())

    def _unavailable(self, error: KafkaError, *needed: Right) -> KafkaUnavailable:
        self._consumer.poll(0)  # lets librdkafka report why; no messages are requested any more
        return unavailable(self._servers, rights.named(error, *needed), self._last_error)

    def _heard(self) -> str:
        """What librdkafka has reported about its connections. While partitions are read, it does so with the
        messages.
        """
        if not self._consumer.assignment():
            self._consumer.poll(0)
        return self._last_error

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name
            self._last_error = error.str()


def _passing(call: Callable[..., list[TopicPartition]]) -> Callable[..., list[TopicPartition]]:
    """The same call, which raises an error of `errors.PASSING` that it would return for a partition."""

    def asked(timeout: float) -> list[TopicPartition]:
        answers = call(timeout=timeout)
        for answer in answers:
            if answer.error is not None and answer.error.code() in errors.PASSING:
                raise KafkaException(answer.error)
        return answers

    return asked


def _has_timed_out(error: KafkaException) -> bool:
    return bool(error.args[0].code() == KafkaError._TIMED_OUT)  # noqa: SLF001 - librdkafka's public name


def _silent(topic: str) -> KafkaError:
    return KafkaError(KafkaError._TIMED_OUT, f"{topic}: nothing came for {SILENT_SECONDS:g} s")  # noqa: SLF001 - its public name
