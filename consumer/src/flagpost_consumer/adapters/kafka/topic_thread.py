"""A thread that reads a topic with its own consumer, by assign(), for the event loop.

In: what to do in the thread. Out: calls on the event loop, until it is stopped.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from flagpost_kafka import rights

BATCH_MESSAGES = 1000
CLOSE_SECONDS = 2.0
"""How long the end of a process waits for the client."""


class TopicThread(ABC):
    """One such thread."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Read in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and call the event loop no more."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until its client is closed, but not for a Kafka that does not answer. Blocks."""
        self._thread.join(CLOSE_SECONDS)

    @staticmethod
    def _came(consumer: Consumer, poll_seconds: float) -> Iterator[Message]:
        """What arrives within a while: messages, and ends of partitions.

        librdkafka's errors about the group are ignored: reading by assign() needs no right to the group. Raises
        KafkaException for any other error, after everything that came before it.
        """
        first = consumer.poll(poll_seconds)
        if first is None:
            return
        for message in (first, *consumer.consume(BATCH_MESSAGES, 0)):
            error = message.error()
            if rights.is_of_group(error):
                continue
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise KafkaException(error)
            yield message

    @abstractmethod
    def _run(self) -> None:
        """Read until `_stopped` is set."""

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._stopped.is_set():
            self._loop.call_soon_threadsafe(what, *arguments)
