"""A thread that reads a topic with a consumer of its own, by assign(), for the event loop.

In: what to do in the thread. Out: calls on the event loop, until nobody wants to know any more.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

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
        """Nobody wants to know any more."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until its client is closed, but not for a Kafka that does not answer. Blocks."""
        self._thread.join(CLOSE_SECONDS)

    @abstractmethod
    def _run(self) -> None:
        """Read until `_stopped` is set."""

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._stopped.is_set():
            self._loop.call_soon_threadsafe(what, *arguments)
