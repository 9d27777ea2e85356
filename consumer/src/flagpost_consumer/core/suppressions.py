"""The visitors of whom nothing is sent, as the suppressions topic tells them.

In: what the topic's records say, in their order. Out: whether a visitor is suppressed. An id is matched exactly as
Pendo would be told it, with or without the prefix of anonymous visitors: `mapping.anonymous` may change, and nobody
is to be sent again for it. What is remembered is bounded in bytes: more than fits is an error, never a visitor
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.visitor_names import name_of_lane, other_name

MAX_BYTES = 64 * 1024 * 1024
"""About 450,000 visitors with ids of 36 characters."""
SLOT_BYTES = 64
"""What a set takes for an entry besides the entry, at most, but for the moment in which it grows."""

SUPPRESSED = Ending(Reason.SUPPRESSED, "the visitor is suppressed (flagpost suppress)")


class Suppression(NamedTuple):
    """What one record of the topic says."""

    visitor_id: str
    is_suppressed: bool
    """False: no longer."""


class TooManySuppressions(Exception):  # noqa: N818 (a state of the topic's, no fault of ours)
    """More visitors are suppressed than are remembered: of some, nobody here could tell."""

    def __init__(self, count: int, max_bytes: int) -> None:
        super().__init__(
            f"more than {count:,} visitors are suppressed, and {max_bytes // 1_048_576} MiB hold no more: "
            "undo some (flagpost suppress VISITOR --undo)"
        )


class Suppressions:
    """The suppressed visitors that are known."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._names: set[str] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._names)

    def hold(self, visitor_id: str) -> bool:
        """Whether a visitor is suppressed, by either name."""
        if not self._names:
            return False
        name = name_of_lane(visitor_id)
        return name in self._names or other_name(name) in self._names

    def take(self, suppressions: Iterable[Suppression]) -> None:
        """Take note of records, in their order.

        Raises:
            TooManySuppressions: what is known from here on is not all.
        """
        for visitor_id, is_suppressed in suppressions:
            name = name_of_lane(visitor_id)
            if is_suppressed == (name in self._names):
                continue
            size = name.__sizeof__() + SLOT_BYTES
            if not is_suppressed:
                self._names.discard(name)
                self._bytes -= size
            elif self._bytes + size > self._max_bytes:
                raise TooManySuppressions(len(self._names), self._max_bytes)
            else:
                self._names.add(name)
                self._bytes += size

    def become(self, others: Suppressions) -> None:
        """Know what others know, and nothing else."""
        self._names, self._bytes = others._names.copy(), others._bytes
