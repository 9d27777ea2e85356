"""What the sinks in Python have in common: one connection that answers 200 to every request after a latency.

In: what a connection receives. Out: each request's body, and the answer; what is noted of them is the sinks' own.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One connection; a pipelined request is answered in its turn."""

    def __init__(self, latency_seconds: float) -> None:
        self._latency_seconds = latency_seconds
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._pending, 0, end)
            body_end = end + 4 + (int(length[1]) if length else 0)
            if len(self._pending) < body_end:
                return
            body = bytes(self._pending[end + 4 : body_end])
            del self._pending[:body_end]
            answer = self.requested(body)
            if self._latency_seconds:
                asyncio.get_running_loop().call_later(self._latency_seconds, answer)
            else:
                answer()

    @abstractmethod
    def requested(self, body: bytes) -> Callable[[], None]:
        """Note a request that has come whole; returns what answers it, after the latency."""

    def write_answer(self) -> None:
        """Write an answer, if the client is still there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(ANSWER)
