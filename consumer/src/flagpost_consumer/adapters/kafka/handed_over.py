"""How much has been handed to the event loop and is not taken in yet: bounded in batches and in bytes.

In: the sizes of what is handed over and taken in. Out: whether there is room for more, and how many messages to read
at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.message_headers import weight_of_headers

MAX_BATCHES = 8
"""Batches that the loop has not taken in; at this many the thread waits."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of keys and values in these batches; at this many the thread waits, however few the batches."""
BATCH_MESSAGES = 250
BATCH_BYTES = 2 * 1024 * 1024
"""The most bytes of one batch, estimated from the messages of the one before."""


READ_AT_ONCE = 32
"""Messages that are read before their size is measured."""


def size_of(messages: Sequence[Message]) -> int:
    """Bytes of messages' keys and values, and what their headers take in memory."""
    return sum(
        [
            len(message.value() or b"") + len(message.key() or b"") + weight_of_headers(message)
            for message in messages
        ]
    )


class HandedOver:
    """What the loop has not taken in yet. Any thread may use it."""

    def __init__(self, max_batches: int, max_bytes: int) -> None:
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._batches = 0
        self._bytes = 0
        self._changed = threading.Condition()

    def wait(self, seconds: float) -> bool:
        """Wait for room; returns whether there is any."""
        with self._changed:
            return self._changed.wait_for(self._has_room, seconds)

    def take(self, size: int) -> None:
        """A batch of this many bytes is handed over."""
        with self._changed:
            self._batches += 1
            self._bytes += size

    def give_back(self, size: int) -> None:
        """A batch of this many bytes is taken in."""
        with self._changed:
            self._batches -= 1
            self._bytes -= size
            self._changed.notify()

    def _has_room(self) -> bool:
        return self._batches < self._max_batches and self._bytes < self._max_bytes


class BatchSize:
    """How many messages to read at once: fewer if they are large."""

    def __init__(self) -> None:
        self.messages = BATCH_MESSAGES

    def adapt(self, count: int, size: int) -> None:
        """Learn from a batch; the next may have at most twice the number of messages that this one was allowed."""
        mean = max(1, size // count)
        self.messages = max(1, min(BATCH_MESSAGES, 2 * self.messages, BATCH_BYTES // mean))
