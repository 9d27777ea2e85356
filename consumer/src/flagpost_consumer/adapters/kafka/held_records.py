"""What partitions that wait for the registry hold, within a limit of records and bytes.

In: what arrives for a waiting partition, in order. Out: the same, in the same order, and the partitions that hold so
much that no more of them should be read. The limit can be exceeded only by what the Kafka thread has already handed
over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, KeysView
from dataclasses import dataclass, field
from typing import TypeAlias

from flagpost_consumer.adapters.kafka.message_records import HeldMessage
from flagpost_consumer.core.records import Record

MAX_RECORDS = 1_000
"""Of one partition."""
MAX_BYTES = 1_048_576
"""Of one partition: keys, values and headers."""
MAX_ALL_RECORDS = 5_000
MAX_ALL_BYTES = 16_777_216
RESUME_AT = 0.5
"""The part of a limit below which a partition is read again: well below 1, because each pause makes the client fetch
again.
"""

Action: TypeAlias = Callable[[], None]
Held: TypeAlias = HeldMessage | Record | Action
"""A message, a record (of a large message, without its bytes), or something to do in turn."""


@dataclass(slots=True)
class _Amount:
    """How much is held."""

    most_records: int
    most_bytes: int
    records: int = 0
    bytes: int = 0
    is_full: bool = False

    def change(self, records: int, size_bytes: int) -> None:
        self.records += records
        self.bytes += size_bytes
        part = RESUME_AT if self.is_full else 1
        self.is_full = self.records >= part * self.most_records or self.bytes >= part * self.most_bytes


@dataclass(slots=True)
class _Queue:
    """What one partition holds."""

    items: deque[Held] = field(default_factory=deque)
    amount: _Amount = field(default_factory=lambda: _Amount(MAX_RECORDS, MAX_BYTES))


class HeldRecords:
    """What all partitions hold."""

    def __init__(self) -> None:
        self._queues: dict[int, _Queue] = {}
        self.partitions: KeysView[int] = self._queues.keys()
        """Partitions that hold anything: a view, because it is looked at for every message."""
        self._all = _Amount(MAX_ALL_RECORDS, MAX_ALL_BYTES)

    @property
    def full_partitions(self) -> frozenset[int]:
        """Partitions of which no more should be read: all of them if they hold too much together."""
        if self._all.is_full:
            return frozenset(self._queues)
        return frozenset(n for n, queue in self._queues.items() if queue.amount.is_full)

    def append(self, partition: int, held: Held) -> None:
        """Hold one more."""
        queue = self._queues.setdefault(partition, _Queue())
        queue.items.append(held)
        self._change(queue, 1, _bytes(held))

    def first(self, partition: int) -> Held | None:
        """The oldest; None: nothing is held."""
        queue = self._queues.get(partition)
        return None if queue is None else queue.items[0]

    def replace_first(self, partition: int, held: Held) -> None:
        """Replace the oldest by something of the same size."""
        self._queues[partition].items[0] = held

    def pop(self, partition: int) -> None:
        """Remove the oldest."""
        queue = self._queues[partition]
        self._change(queue, -1, -_bytes(queue.items.popleft()))
        if not queue.items:
            del self._queues[partition]

    def drop(self, partition: int) -> Iterable[Held]:
        """Remove everything of a partition, and return it."""
        queue = self._queues.pop(partition, None)
        if queue is None:
            return ()
        self._change(queue, -queue.amount.records, -queue.amount.bytes)
        return queue.items

    def _change(self, queue: _Queue, records: int, size_bytes: int) -> None:
        queue.amount.change(records, size_bytes)
        self._all.change(records, size_bytes)


def _bytes(held: Held) -> int:
    return held.size_bytes if isinstance(held, HeldMessage) else 0
