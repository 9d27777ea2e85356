"""Settlements of an engine, for the tests of the code that writes them."""

from __future__ import annotations

from engine_world import ready, record
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure


class DeadEngine:
    """An engine in which every record is undecodable: each is dead-lettered at once."""

    def __init__(self, partitions: int) -> None:
        self.engine = Engine(Policy(), lambda: 0.5)
        ready(self.engine, range(partitions), partitions, clock(), Policy())
        self._next = dict.fromkeys(range(partitions), 0)

    def settlements(self, count: int, partition: int = 0) -> list[Settlement]:
        """Settlements of the next records of a partition."""
        first = self._next[partition]
        self._next[partition] = first + count
        broken = DecodeFailure(Reason.UNDECODABLE, "cut short")
        records = [
            record(broken, offset, partition, key=f"key-{offset}") for offset in range(first, first + count)
        ]
        self.engine.receive(records, clock())
        return self.engine.poll(clock()).settlements

    def hand_over(self, *partitions: int) -> None:
        """Take these partitions away: another member has them now."""
        self.engine.forget(partitions, clock())
