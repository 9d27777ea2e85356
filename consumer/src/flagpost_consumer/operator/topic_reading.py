"""Reads stretches of a topic for operators' commands, as no member of any group.

In: the `kafka` section, a topic, offsets. Out: messages, partition by partition mixed; watermarks, offsets by
time, what a group has committed. Only what is committed is read (read_committed). Calls block; where Kafka does
not answer they raise KafkaUnavailable with the reason in a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin._metadata import TopicMetadata

from flagpost_consumer.adapters.kafka_config import reader_config
from flagpost_consumer.operator.kafka_admin import CALL_SECONDS, KafkaUnavailable, unavailable
from flagpost_consumer.operator.kafka_clients import silent_client
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import errors, rights
from flagpost_kafka.rights import Operation, Resource, Right

BATCH_MESSAGES = 500
POLL_SECONDS = 0.2
FETCH_WAIT_MS = 50
GROUP_SECONDS = 1.0
"""After so long without an answer of the group's, it is looked whether there is a reason."""
SILENT_SECONDS = 30.0
"""How long nothing may come while something is expected."""

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
    """One connection for reading; a context manager. Not to be shared by threads."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """`kafka.group_id` is whose commits `committed` tells; the group is not joined.

        Raises:
            SettingsError: librdkafka refuses a property.
        """
        self._servers = kafka.bootstrap_servers or ""
        self._group = kafka.group_id
        self._last_error = ""
        self._ends_seen: dict[tuple[str, int], int] = {}
        self._said_of_group: KafkaError | None = None
        """That this user may not see the group, where librdkafka has said so: it says it once."""
        self._consumer = silent_client(
            Consumer,
            {
                # A partition's end is told by an answer without messages, for which a person waits.
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                **reader_config(kafka),
                "error_cb": self._remember,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def spans(self, topic: str) -> dict[int, Span]:
        """What each partition of `topic` holds now."""
        return self._spans(topic, self._look(topic))

    def spans_if_there(self, topic: str) -> dict[int, Span]:
        """The same; empty where there is no such topic."""
        found = self._look(topic)
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return {}
        return self._spans(topic, found)

    def first_at(self, topic: str, time_ms: int, spans: Mapping[int, Span]) -> dict[int, int]:
        """The first offset of each partition whose record was produced at `time_ms` (epoch ms) or later."""
        asked = [TopicPartition(topic, number, time_ms) for number in spans]
        answers = self._ask(lambda: self._consumer.offsets_for_times(asked, timeout=CALL_SECONDS))
        self._check(answers, rights.reads(topic))
        return {
            each.partition: each.offset if each.offset >= 0 else spans[each.partition].end for each in answers
        }

    def within(
        self, topic: str, spans: Mapping[int, Span], since_ms: int | None, until_ms: int | None = None
    ) -> dict[int, Span]:
        """What of these stretches was produced from `since_ms` to before `until_ms` (epoch ms); None: no bound.

        So windows that follow one another share no record and leave none out, however publishers' clocks differ.
        """
        first = {number: span.first for number, span in spans.items()}
        end = {number: span.end for number, span in spans.items()}
        if spans and since_ms is not None:
            first = self.first_at(topic, since_ms, spans)
        if spans and until_ms is not None:
            end = self.first_at(topic, until_ms, spans)
        return {
            number: Span(max(span.first, first[number]), min(span.end, end[number]))
            for number, span in spans.items()
        }

    def committed(self, topic: str, partitions: Mapping[int, object]) -> dict[int, Committed]:
        """The group's commits; a partition without one is left out."""
        asked = [TopicPartition(topic, number) for number in partitions]
        right = Right(Operation.DESCRIBE, Resource.GROUP, self._group)
        answers = self._ask(lambda: self._told_of_group(asked), right)
        self._check(answers, rights.reads(topic))
        return {
            each.partition: Committed(each.offset, each.metadata or "")
            for each in answers
            if each.offset >= 0
        }

    def read(self, topic: str, spans: Mapping[int, Span]) -> Iterator[Message]:
        """The messages of these stretches, each partition's in order.

        A stretch may hold fewer messages than offsets (transactions, retention). What lies below the oldest
        offset that is left begins there.
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
            with suppress(RuntimeError):  # who stops early may have closed the reader before
                self._consumer.unassign()

    def follow(self, topics: Mapping[str, Mapping[int, int]]) -> Iterator[Message | None]:
        """The messages of topics from these offsets on, without end; None after each batch, and when none came."""
        self._consumer.assign(
            [
                TopicPartition(topic, number, offset)
                for topic, first in topics.items()
                for number, offset in first.items()
            ]
        )
        while True:
            yield from self._next_batch()
            yield None

    def ends_seen(self) -> dict[tuple[str, int], int]:
        """Where partitions ended in what `follow` has given up to its last None: the last message may lie before."""
        return dict(self._ends_seen)

    def _told_of_group(self, asked: list[TopicPartition]) -> list[TopicPartition]:
        """The group's commits. Where it may not be seen, librdkafka says so beside, and the call only times out."""
        deadline = time.monotonic() + CALL_SECONDS
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
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENT_SECONDS:
                raise self._unavailable(_silent(topic))
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
        """Whether the partition ends here. Raises KafkaUnavailable for any other error."""
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
        """What came, but for words about the group: reading by assign() needs no right on it."""
        found = []
        for message in self._consumer.consume(BATCH_MESSAGES, POLL_SECONDS):
            if rights.is_of_group(message.error()):
                self._said_of_group = message.error()
            else:
                found.append(message)
        return found

    def _look(self, topic: str) -> TopicMetadata:
        found: TopicMetadata = self._ask(
            lambda: self._consumer.list_topics(topic, timeout=CALL_SECONDS)
        ).topics[topic]
        return found

    def _spans(self, topic: str, found: TopicMetadata) -> dict[int, Span]:
        if found.error is not None and found.error.code() in errors.NO_TOPIC:
            raise KafkaUnavailable(errors.of_topic(found.error, rights.reads(topic)))
        if found.error is not None:
            raise self._unavailable(found.error, rights.reads(topic))
        return {number: self._span(topic, number) for number in sorted(found.partitions)}

    def _span(self, topic: str, number: int) -> Span:
        partition = TopicPartition(topic, number)
        low, high = self._ask(lambda: self._consumer.get_watermark_offsets(partition, timeout=CALL_SECONDS))
        return Span(low, high)

    def _ask(self, call: Callable[[], Result], *needed: Right) -> Result:
        try:
            return call()
        except KafkaException as error:
            raise self._unavailable(error.args[0], *needed) from None

    def _unavailable(self, error: KafkaError, *needed: Right) -> KafkaUnavailable:
        self._consumer.poll(0)  # lets librdkafka tell why; nobody asks for messages any more
        return unavailable(self._servers, rights.named(error, *needed), self._last_error)

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name
            self._last_error = error.str()


def _has_timed_out(error: KafkaException) -> bool:
    return bool(error.args[0].code() == KafkaError._TIMED_OUT)  # noqa: SLF001 - librdkafka's public name


def _silent(topic: str) -> KafkaError:
    return KafkaError(KafkaError._TIMED_OUT, f"{topic}: nothing came for {SILENT_SECONDS:g} s")  # noqa: SLF001 - its public name
