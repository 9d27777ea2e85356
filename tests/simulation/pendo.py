"""Pendo, and the network to it. The requests on a connection are HTTP, written by the product itself.

In: bytes that a process writes to a transport. Out: the answer's bytes later, or the end of the connection; and a
list of all requests, as Pendo received them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple

import orjson

from simulation.loop import PROCESS, Process, SimulatedLoop

TRACK_PATH = "/data/track"
METADATA_PATH = "/api/v1/metadata/visitor/custom/value"
SLUGGISH_SECONDS = 1.2
"""The longest time to an answer while Pendo is sluggish: just less than the product waits."""


class Fate(StrEnum):
    """What happens to a request."""

    TAKEN = "taken"
    FAILS = "fails"
    """503."""
    THROTTLED = "throttled"
    FORBIDDEN = "forbidden"
    """401."""
    REJECTED = "rejected"
    """400: this visitor's events are refused."""
    BREAKS = "breaks"
    """The connection ends before Pendo accepts the request."""
    LOST = "lost"
    """Pendo accepts the request, and the connection ends before the answer."""
    HANGS = "hangs"
    """Pendo accepts the request, and never answers."""
    LATE = "late"
    """Pendo accepts the request, and answers after the timeout."""

    @property
    def takes(self) -> bool:
        """Whether Pendo accepts the request."""
        return self in {Fate.TAKEN, Fate.LOST, Fate.HANGS, Fate.LATE}


ANSWERS = {
    Fate.TAKEN: (200, ""),
    Fate.LATE: (200, ""),
    Fate.FAILS: (503, ""),
    Fate.THROTTLED: (429, "Retry-After: 1\r\n"),
    Fate.FORBIDDEN: (401, ""),
    Fate.REJECTED: (400, ""),
}
OUTAGES = (Fate.FAILS, Fate.THROTTLED, Fate.FORBIDDEN, Fate.BREAKS, Fate.HANGS)


@dataclass(slots=True, eq=False)
class Sight:
    """One track request, as Pendo received it."""

    number: int
    at: float
    """When it arrived."""
    process: Process
    visitor: str
    event_key: tuple[str, str, str]
    """Visitor, flag, variation: the product's key for duplicates."""
    occurred_at: int
    fate: Fate
    answered_at: float = float("inf")
    """When its answer left Pendo, or the connection ended."""
    heard_at: float = float("inf")
    """When the process received the answer."""

    @property
    def is_heard(self) -> bool:
        """Whether the sender knows that Pendo accepted it: after a freeze it also reads an answer that was late."""
        return self.fate in {Fate.TAKEN, Fate.LATE} and self.heard_at < float("inf")


class Value(NamedTuple):
    """One metadata value that Pendo has accepted."""

    at: float
    visitor: str
    field: str
    value: str


class Pendo:
    """Answers requests; chance and the present troubles decide how."""

    def __init__(self, loop: SimulatedLoop, random: Random, note: Callable[[str], None]) -> None:
        self.loop = loop
        self.random = random
        self.note = note
        self.sights: list[Sight] = []
        self.values: list[Value] = []
        self.outage: Fate | None = None
        self.outage_until = 0.0
        self.flaky_until = 0.0
        self.poison: frozenset[str] = frozenset()
        """Visitors whose every event is refused."""
        self.ailing: frozenset[str] = frozenset()
        """Visitors whose every request fails with 503."""
        self.is_sluggish_until = 0.0
        self.slowest = 0.05
        """The longest time to an answer, in seconds."""
        self.is_unreachable_until = 0.0
        self.on_request: Callable[[Sight], None] = lambda _: None
        self.on_heard: Callable[[Sight], None] = lambda _: None
        loop.dial, loop.connect = self.dial, self.made

    async def dial(self) -> object:
        """Take the time of a connect(), or raise its error."""
        await asyncio.sleep(self.random.uniform(0.0005, 0.01))
        if self.loop.now < self.is_unreachable_until:
            raise ConnectionRefusedError(111, "Connection refused")
        return object()

    def made(self, factory: Callable[[], Any]) -> tuple[Connection, Any]:
        process = PROCESS.get()
        assert process is not None
        protocol = factory()
        connection = Connection(self, protocol, process)
        protocol.connection_made(connection)
        return connection, protocol

    # What Pendo does

    def arrived(self, connection: Connection, method: str, path: str, body: bytes) -> None:
        """Answer a request that was received completely."""
        if method == "GET":
            # Without the schema, fields are sent under their configured names.
            self._answer_later(connection, 404, "", b"", 0.005, None)
            return
        if path.startswith(TRACK_PATH):
            self._track(connection, body)
        else:
            self._metadata(connection, body)

    def _fate(self, visitors: list[str]) -> Fate:
        now = self.loop.now
        if self.outage is not None and now < self.outage_until:
            return self.outage
        if any(visitor in self.poison for visitor in visitors):
            return Fate.REJECTED
        if any(visitor in self.ailing for visitor in visitors):
            return Fate.FAILS
        if now < self.flaky_until and self.random.random() < 0.15:
            return self.random.choice(
                (Fate.FAILS, Fate.THROTTLED, Fate.BREAKS, Fate.LOST, Fate.HANGS, Fate.LATE)
            )
        return Fate.TAKEN

    def _track(self, connection: Connection, body: bytes) -> None:
        event = orjson.loads(body)
        properties = event["properties"]
        visitor = event["visitorId"]
        key = visitor, properties["flag_key"], properties["variation_key"]
        fate = self._fate([visitor])
        sight = Sight(
            len(self.sights), self.loop.now, connection.process, visitor, key, event["timestamp"], fate
        )
        self.sights.append(sight)
        self.note(f"pendo: {connection.process.name} tells {visitor} {key[1]}={key[2]}: {fate}")
        self.on_request(sight)
        self._do(connection, fate, b"", sight)

    def _metadata(self, connection: Connection, body: bytes) -> None:
        items = orjson.loads(body)
        visitors = [item["visitorId"] for item in items]
        fate = self._fate(visitors)
        self.note(f"pendo: {connection.process.name} tells metadata of {', '.join(visitors)}: {fate}")
        if fate.takes:
            for item in items:
                for name, value in item["values"].items():
                    self.values.append(Value(self.loop.now, item["visitorId"], name, str(value)))
        answer = orjson.dumps({"total": len(items), "updated": len(items), "failed": 0, "missing": []})
        self._do(connection, fate, answer, None)

    def _do(self, connection: Connection, fate: Fate, body: bytes, sight: Sight | None) -> None:
        slowest = SLUGGISH_SECONDS if self.loop.now < self.is_sluggish_until else self.slowest
        seconds = self.random.uniform(0.001, slowest)
        if fate in {Fate.BREAKS, Fate.LOST}:
            self.loop.in_world(self.loop.now + seconds, self._end, connection, sight)
            return
        if fate is Fate.HANGS:
            return
        if fate is Fate.LATE:
            seconds += 2.0
        status, headers = ANSWERS[fate]
        self._answer_later(connection, status, headers, body, seconds, sight)

    def _end(self, connection: Connection, sight: Sight | None) -> None:
        if sight is not None:
            sight.answered_at = self.loop.now
        connection.end()

    def _answer_later(
        self,
        connection: Connection,
        status: int,
        headers: str,
        body: bytes,
        seconds: float,
        sight: Sight | None,
    ) -> None:
        head = f"HTTP/1.1 {status} Answer\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.loop.in_world(self.loop.now + seconds, self._answer, connection, head.encode() + body, sight)

    def _answer(self, connection: Connection, answer: bytes, sight: Sight | None) -> None:
        if sight is not None:
            sight.answered_at = self.loop.now
        connection.send(answer, sight)


class Connection(asyncio.Transport):
    """One TCP connection: the transport that the process uses."""

    def __init__(self, pendo: Pendo, protocol: Any, process: Process) -> None:
        super().__init__()
        self.process = process
        self._pendo = pendo
        self._protocol = protocol
        self._received = bytearray()
        self._is_closed = False

    # The process's end

    def write(self, data: Any) -> None:
        if not self._is_closed:
            pendo = self._pendo
            latency = pendo.random.uniform(0.0002, 0.005)
            pendo.loop.in_world(pendo.loop.now + latency, self._take, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._pendo.loop.call_soon(self._protocol.connection_lost, None, context=self.process.context)

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        """Answers are small."""

    def resume_reading(self) -> None:
        """Answers are small."""

    def is_reading(self) -> bool:
        return True

    # Pendo's end

    def _take(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            lines = self._received[:end].decode().split("\r\n")
            method, path, _ = lines[0].split(" ")
            lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
            length = int(lengths[0]) if lengths else 0
            if len(self._received) < end + 4 + length:
                return
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            self._pendo.arrived(self, method, path, body)

    def send(self, data: bytes, sight: Sight | None) -> None:
        """Send an answer to the process."""
        loop = self._pendo.loop
        latency = self._pendo.random.uniform(0.0002, 0.005)
        loop.call_later(latency, self._deliver, data, sight, context=self.process.context)

    def _deliver(self, data: bytes, sight: Sight | None) -> None:
        if not self._is_closed:
            if sight is not None:
                sight.heard_at = self._pendo.loop.now
                self._pendo.on_heard(sight)
            self._protocol.data_received(data)

    def end(self) -> None:
        """Close the connection at Pendo's end."""
        self._pendo.loop.call_soon(self._ended, context=self.process.context)

    def _ended(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._protocol.connection_lost(None)
