"""The visitors to whom nothing is sent, according to the suppressions topic.

In: the topic's records, in order. Out: whether a visitor is suppressed. An id is matched exactly as Pendo would get
it, with or without the prefix of anonymous visitors: `mapping.anonymous` may change, and no suppressed visitor may be
sent again because of that. Memory is bounded in bytes: more than fits is an error, and no visitor is ever forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.planning.visitor_names import name_of_lane, other_name

MAX_BYTES = 64 * 1024 * 1024
"""About 450,000 visitors with ids of 36 characters."""
SLOT_BYTES = 64
"""Bytes that a set takes at most for an entry besides the entry itself, except while it grows."""

SUPPRESSED = Ending(Reason.SUPPRESSED, "the visitor is suppressed (flagpost suppress)")


class Suppression(NamedTuple):
    """One record of the topic."""

    visitor_id: str
    is_suppressed: bool
    """False: the suppression is undone."""


class TooManySuppressions(Exception):  # noqa: N818 (a state of the topic's, no fault of ours)
    """More visitors are suppressed than fit in memory, so it is not known of all who is."""

    def __init__(self, count: int, max_bytes: int) -> None:
        super().__init__(
            f"more than {count:,} visitors are suppressed, and {max_bytes // 1_048_576} MiB can hold no more: "
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
        """Whether a visitor is suppressed, under either name."""
        if not self._names:
            return False
        name = name_of_lane(visitor_id)
        return name in self._names or other_name(name) in self._names

    def take(self, suppressions: Iterable[Suppression]) -> None:
        """Take in records, in order.

        Raises:
            TooManySuppressions: what is known from now on is incomplete.
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
        """Replace what is known by what others know."""
        self._names, self._bytes = others._names.copy(), others._bytes
