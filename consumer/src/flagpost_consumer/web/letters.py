"""The dead letters of a window: how many by reason, and the newest of them.

In: messages of the dead-letter topic, each partition's in order. Out: counts by reason and kind, the newest letters,
and which deliveries' letters were put back. No I/O.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker, Place
from flagpost_consumer.commands.reconcile.replays import Dead, source_of

NEWEST: Final = 500
"""Letters that are listed."""
LETTER_BYTES: Final = 400
"""Approximate bytes of a letter until it is put back."""
IDENTITY_BYTES: Final = 100


class LetterCount(NamedTuple):
    """Dead letters of one reason and kind."""

    reason: str
    kind: str
    waiting: int
    """Letters that were not put back."""
    replayed: int


class Letters:
    """The dead letters that were read."""

    def __init__(self, events_topic: str) -> None:
        self._events_topic = events_topic
        self._waiting: dict[Place, tuple[str, str, Dead | None]] = {}
        self._newest: OrderedDict[Place, DeadLetter] = OrderedDict()
        self._seen: set[int] = set()
        """Identities: if Kafka has two copies of a letter, the first counts."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._replayed: Counter[tuple[str, str]] = Counter()

    @property
    def bytes_held(self) -> int:
        """Approximate bytes in memory."""
        return LETTER_BYTES * len(self._waiting) + IDENTITY_BYTES * len(self._seen)

    def add(self, found: DeadLetter | Marker | None, value: bytes | None) -> Dead | None:
        """Count a record of the topic; returns the delivery whose letter was put back, if the record says so."""
        if isinstance(found, DeadLetter):
            identity = hash((found.source, found.kind, found.key, value))
            if identity in self._seen:
                return None
            self._seen.add(identity)
            self._counts[found.reason, found.kind] += 1
            self._waiting[found.place] = found.reason, found.kind, source_of(found, self._events_topic)
            self._newest[found.place] = found
            if len(self._newest) > NEWEST:
                self._newest.popitem(last=False)
        elif isinstance(found, Marker) and found.of in self._waiting:
            reason, kind, source = self._waiting.pop(found.of)
            self._replayed[reason, kind] += 1
            self._newest.pop(found.of, None)
            return source
        return None

    def counts(self) -> list[LetterCount]:
        """By reason and kind, the most frequent first."""
        return [
            LetterCount(*key, count - self._replayed[key], self._replayed[key])
            for key, count in self._counts.most_common()
        ]

    def newest(self) -> Iterator[DeadLetter]:
        """The newest first, without those that were put back."""
        return reversed(self._newest.values())
