"""Follows topics during the soak: reads what was really published, and how each delivery was settled.

In: a broker, topics. Out: entries in the order of their arrival. The producers' reports do not count: an event is
published if it can be read from the topic (read_committed).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from chaos.soak.events import PARTITIONS, Content, content_of, plan_in
from flagpost_consumer.core.outcomes import Kind
from flagpost_schemas import LedgerEntry, decode_settlements

POLL_SECONDS = 0.2
CALL_SECONDS = 5.0
CATCH_UP_SECONDS = 120.0


class TopicTail:
    """Follows one topic from its beginning, in a thread of its own."""

    def __init__(self, bootstrap_servers: str, topic: str, take: Callable[[Message], None]) -> None:
        self._topic = topic
        self._take = take
        self._properties = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{topic}-tail",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            # A topic may end with a transaction's marker, which is not returned as a message.
            "enable.partition.eof": True,
            "log_level": 0,
        }
        self._consumer = Consumer(self._properties)
        self._positions = dict.fromkeys(range(PARTITIONS), 0)
        self._consumer.assign([TopicPartition(topic, number, 0) for number in self._positions])
        self.error: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def catch_up(self) -> None:
        """Block until everything that is in the topic now has been read."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        # Not with the client that reads: its calls wait for one another.
        asking = Consumer({**self._properties, "group.id": f"{self._topic}-ends"})
        try:
            ends = {number: self._end_of(asking, number, deadline) for number in range(PARTITIONS)}
        finally:
            asking.close()
        while any(self._positions[number] < end for number, end in ends.items()):
            assert time.monotonic() < deadline, f"{self._topic} cannot be read to its end: {ends}"
            assert self.error is None, self.error
            time.sleep(0.1)

    def close(self) -> None:
        """Stop reading; raises AssertionError if reading had failed."""
        self._ended.set()
        self._thread.join()
        self._consumer.close()
        assert self.error is None, self.error

    def _end_of(self, asking: Consumer, number: int, deadline: float) -> int:
        while True:
            try:
                partition = TopicPartition(self._topic, number)
                return int(asking.get_watermark_offsets(partition, timeout=CALL_SECONDS)[1])
            except KafkaException:
                assert time.monotonic() < deadline, f"Kafka does not tell the end of {self._topic}"

    def _read(self) -> None:
        try:
            while not self._ended.is_set():
                message = self._consumer.poll(POLL_SECONDS)
                if message is not None:
                    self._note(message)
        except Exception as error:  # noqa: BLE001 - `catch_up` and `close` report it
            self.error = error

    def _note(self, message: Message) -> None:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is None:
            assert partition is not None
            assert offset is not None
            self._take(message)
            self._positions[partition] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._positions[partition] = max(offset, self._positions[partition])


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the events topic."""

    partition: int
    offset: int
    seen_at: float
    """Monotonic time when it could be read."""
    content: Content
    plan: int | None
    """The value of PLAN in a metadata record; None in others."""


class Published:
    """The records of one life of the events topic."""

    def __init__(self, bootstrap_servers: str, topic: str, topic_id: str) -> None:
        self.topic_id = topic_id
        self.entries: list[Entry] = []
        self.tail = TopicTail(bootstrap_servers, topic, self._take)

    def _take(self, message: Message) -> None:
        key, value = message.key(), message.value()
        partition, offset = message.partition(), message.offset()
        assert isinstance(key, bytes)
        assert value is not None
        assert partition is not None
        assert offset is not None
        about = content_of(key, value), plan_in(key, value)
        self.entries.append(Entry(partition, offset, time.monotonic(), *about))


Identity = tuple[str | None, int, int, Kind]
"""The identity of a delivery: topic id, partition, offset, kind."""


class Ledger:
    """The ledger's entries."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.settled: dict[Identity, list[LedgerEntry]] = defaultdict(list)
        self.kinds: dict[tuple[str | None, int, int], set[Kind]] = defaultdict(set)
        self.settled_at: dict[Identity, float] = {}
        """Monotonic time when the first settlement was read."""
        self.gaps = 0
        """Offsets that were given up as lost."""
        self.tail = TopicTail(bootstrap_servers, topic, self._take)

    def _take(self, message: Message) -> None:
        value, partition = message.value(), message.partition()
        assert value is not None
        assert partition is not None
        settlements = decode_settlements(value)
        self.gaps += sum(gap.to_offset - gap.from_offset for gap in settlements.gaps)
        for entry in settlements.entries:
            kind = Kind(entry.kind)
            identity = (settlements.topic_id, partition, entry.offset, kind)
            self.settled[identity].append(entry)
            self.settled_at.setdefault(identity, time.monotonic())
            self.kinds[settlements.topic_id, partition, entry.offset].add(kind)

    def is_settled(self, topic_id: str, entry: Entry) -> bool:
        """Whether every delivery of a record is settled."""
        kinds = self.kinds.get((topic_id, entry.partition, entry.offset), set())
        return bool(kinds) and (Kind.UNKNOWN in kinds or kinds >= entry.content.kinds)
