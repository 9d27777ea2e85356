"""Messages, and a schema registry, in virtual time: runs `Decoding` without Kafka, HTTP or a clock.

In: what the registry answers about an id at a time. Out: records, requests and waits, with their times.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any, cast

from confluent_kafka import Message

from engine_steps import decoded_into
from engine_world import START_MS
from flagpost_consumer.adapters.kafka.decoding import Decoding
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.planning.schema_lookups import SchemaAnswer
from flagpost_consumer.core.records import DecodeFailure, Record, Undecoded

ANSWER_SECONDS = 0.01

Answers = Callable[[int, float], SchemaAnswer | None]
"""The registry's answer about an id at a time, in seconds; None: it never answers."""


class FakeMessage:
    """A message of the Kafka consumer; `raises` makes parts of it unreadable."""

    def __init__(
        self, value: bytes | None, offset: int, partition: int = 0, key: bytes | None = b"v"
    ) -> None:
        self._value, self._offset, self._partition, self._key = value, offset, partition, key
        self._headers: list[tuple[str, bytes]] = [("trace", b"x")]
        self.raises: dict[str, list[Exception]] = {}
        """By part of the message: the exceptions that reading it raises, one after the other."""
        self.header_reads = 0

    def with_headers(self, headers: list[tuple[str, bytes]]) -> FakeMessage:
        self._headers = headers
        return self

    def _read(self, part: str, content: Any) -> Any:
        if self.raises.get(part):
            raise self.raises[part].pop(0)
        return content

    def value(self) -> bytes | None:
        return cast("bytes | None", self._read("value", self._value))

    def key(self) -> bytes | None:
        return cast("bytes | None", self._read("key", self._key))

    def headers(self) -> list[tuple[str, bytes]]:
        self.header_reads += 1
        return cast("list[tuple[str, bytes]]", self._read("headers", self._headers))

    def set_headers(self, headers: list[tuple[str, bytes]]) -> None:
        self._headers = headers

    def timestamp(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self._read("timestamp", (1, START_MS)))

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return self._partition


def messages(*values: bytes | None, partition: int = 0, first: int = 0) -> list[Message]:
    fakes = [FakeMessage(value, offset, partition) for offset, value in enumerate(values, first)]
    return cast("list[Message]", fakes)


class RegistryWorld:
    """A registry, a clock, and the decoded records."""

    def __init__(self, answers: Answers = lambda _id, _now: None, **settings: Any) -> None:
        self.seconds = 0.0
        self.answers = answers
        self.asked: list[tuple[float, int]] = []
        """The time and the id of each request."""
        self.most_at_once = 0
        self.taken: list[tuple[float, Record]] = []
        self.changes = 0
        self.quarantined = 0
        self.failed: list[Exception] = []
        self._under_way = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._alarm = -1
        self.decoding = Decoding(
            self,
            self._take,
            on_change=self._changed,
            on_quarantined=self._quarantine,
            now=self.now,
            **settings,
        )

    # What Decoding calls

    def now(self) -> Instant:
        return Instant(self.seconds, START_MS + round(self.seconds * 1000))

    def ask(self, schema_id: int, on_answer: Callable[[int, SchemaAnswer], None]) -> None:
        self.asked.append((self.seconds, schema_id))
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        answer = self.answers(schema_id, self.seconds)

        def answered() -> None:
            self._under_way -= 1
            assert answer is not None
            on_answer(schema_id, answer)

        if answer is not None:
            self._at(self.seconds + ANSWER_SECONDS, answered)

    def wake_after(self, seconds: float | None, action: Callable[[], None]) -> None:
        self._alarm = next(self._numbers)
        mine = self._alarm
        if seconds is not None:
            self._at(self.seconds + seconds, lambda: action() if self._alarm == mine else None)

    def stop(self) -> None:
        self._due.clear()

    # What tests call

    def take(self, *batch: Message) -> None:
        """Hand over messages from the intake; this must return at once, even if partitions wait."""
        done: list[bool] = []
        self.decoding.take(list(batch), lambda: done.append(True))
        assert done == [True]

    def run(self, until: float = inf, reached: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until a time, until a condition holds, or until nothing is left to do."""
        while self._due and self._due[0][0] <= until and not reached():
            self.seconds, _, action = heapq.heappop(self._due)
            action()
        if until < inf and not reached():
            self.seconds = max(self.seconds, until)

    def offsets(self, partition: int) -> list[int]:
        return [record.offset for _, record in self.taken if record.partition == partition]

    def failures(self) -> list[DecodeFailure]:
        return [record.event for _, record in self.taken if isinstance(record.event, DecodeFailure)]

    def taken_at(self, partition: int) -> list[float]:
        return [second for second, record in self.taken if record.partition == partition]

    def requests_of(self, schema_id: int) -> list[float]:
        return [second for second, asked in self.asked if asked == schema_id]

    def most_requests_in_a_second(self) -> int:
        return max(Counter(int(second) for second, _ in self.asked).values(), default=0)

    def _at(self, second: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (second, next(self._numbers), action))

    def _take(self, records: list[Record | Undecoded]) -> None:
        decoded: list[Record] = []
        decoded_into(decoded)(records)
        self.taken += [(self.seconds, record) for record in decoded]

    def _changed(self) -> None:
        self.changes += 1

    def _quarantine(self) -> None:
        self.quarantined += 1
