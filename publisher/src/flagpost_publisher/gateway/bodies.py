"""Reads bodies of requests: the media type, the content coding, and no more bytes or seconds than allowed.

In: headers, and a stream of bytes. Out: the decoded body, or a Refusal: 415, 413, 408, or 400 if the coding is
broken. Decompression stops at the limit, however few bytes were sent.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flagpost_publisher.gateway.refusals import Refusal

READ_SECONDS: Final = 20.0
"""How long a body may take to arrive."""
STRANGERS_READ_SECONDS: Final = 8.0
"""The same without a key: a stop waits for requests in flight, and should not wait for strangers."""
GRACE_SECONDS: Final = 4.0
LEAST_BYTES_A_SECOND: Final = 4_096
"""A body that arrives more slowly, after the first seconds, is refused to make room for others."""
OVERHEAD_BYTES: Final = 65_536
"""How much longer a compressed body may be than the limit for its contents: formats have headers."""

MAX_MEMBERS: Final = 16
"""How many members a gzip body may have: one is usual, and each of 20 bytes costs as much time as a long one."""
INFLATING_BYTES: Final = 49_152
"""Memory that zlib uses for a body that it decompresses."""

WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Supported content codings (RFC 9110 section 8.4.1), and zlib's wbits for them."""


JSON: Final = frozenset({"application/json"})
JSON_OR_TEXT: Final = JSON | {"text/plain", ""}
"""Segment's libraries for .NET, Kotlin and browsers send text/plain, or no type at all."""


def require_media_type(headers: Mapping[str, str], media_types: frozenset[str]) -> None:
    """Raise Refusal (415) for another media type than these, or an unsupported content coding."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise Refusal(415, "the body's media type is not JSON", fix="send content-type: application/json")
    if _coding(headers) not in {"", "identity", *WINDOWS}:
        raise Refusal(
            415,
            "the body's content-encoding is not supported",
            fix="send it as gzip, deflate, or uncompressed",
            headers={"accept-encoding": "gzip, deflate"},
        )


async def read_body(
    headers: Mapping[str, str],
    chunks: AsyncIterator[bytes],
    max_bytes: int,
    hold: Callable[[int], None],
    most_seconds: float = READ_SECONDS,
) -> bytes:
    """The decoded body. Raises Refusal.

    Args:
        headers: the request's, after `require_media_type`.
        chunks: the body as it arrives.
        max_bytes: its limit after decoding.
        hold: called with the bytes that are kept in memory; may raise Refusal.
        most_seconds: how long it may take to arrive.
    """
    if int(headers.get("content-length", "0")) > max_bytes + OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    if _coding(headers) in WINDOWS:
        hold(INFLATING_BYTES)
    loop = asyncio.get_running_loop()
    pace = Pace(loop.time(), most_seconds)
    try:
        async with asyncio.timeout_at(pace.until(0)) as limit:
            undoing = Undoing(_coding(headers), max_bytes)
            return await _read(undoing, _paced(chunks, pace, limit), hold)
    except TimeoutError:
        raise Refusal(
            408,
            f"the body took over {most_seconds:g} s, or came slower than {LEAST_BYTES_A_SECOND} bytes a second",
            fix="send it faster, or in smaller requests",
            headers={"connection": "close"},
        ) from None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a body must arrive."""

    began: float
    most_seconds: float

    def until(self, count: int) -> float:
        """Until when the next bytes must arrive, after this many."""
        return self.began + min(GRACE_SECONDS + count / LEAST_BYTES_A_SECOND, self.most_seconds)


async def _paced(chunks: AsyncIterator[bytes], pace: Pace, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The same chunks; each extends the time that is left."""
    count = 0
    async for chunk in chunks:
        count += len(chunk)
        limit.reschedule(pace.until(count))
        yield chunk


async def _read(undoing: Undoing, chunks: AsyncIterator[bytes], hold: Callable[[int], None]) -> bytes:
    body = bytearray()  # not a list of parts: a part of one byte takes forty
    async for chunk in chunks:
        part = undoing.feed(chunk)
        hold(len(part))
        body += part
    undoing.finish()
    return bytes(body)


def _coding(headers: Mapping[str, str]) -> str:
    return headers.get("content-encoding", "").strip().lower()


class Undoing:
    """Decodes a content coding piece by piece, up to a limit."""

    def __init__(self, coding: str, max_bytes: int) -> None:
        """`coding` is one of WINDOWS, or stands for none."""
        window = WINDOWS.get(coding)
        self._inflating = None if window is None else Inflating(window)
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._wire_left = max_bytes + OVERHEAD_BYTES

    def feed(self, chunk: bytes) -> bytes:
        """Decode `chunk`. Raises Refusal (413, 400)."""
        # One byte more than allowed is requested, to notice when there are too many.
        part = chunk if self._inflating is None else self._inflating.feed(chunk, self._left + 1)
        self._left -= len(part)
        self._wire_left -= len(chunk)
        if self._left < 0 or self._wire_left < 0:
            raise _too_large(self._max_bytes)
        return part

    def finish(self) -> None:
        """Raise Refusal (400) if the end is missing."""
        if self._inflating is not None and not self._inflating.is_whole:
            raise _broken("ends too early")


class Inflating:
    """Decompresses one file of zlib or gzip; a gzip file may have several members (RFC 1952)."""

    def __init__(self, window: int) -> None:
        """`window`: zlib's wbits."""
        self._window = window
        self._member = zlib.decompressobj(window)
        self._members = 1

    @property
    def is_whole(self) -> bool:
        """Whether the last member has ended."""
        return self._member.eof

    def feed(self, chunk: bytes, most: int) -> bytes:
        """At most `most` bytes of the contents of `chunk`; if there are more, the object cannot be used any
        further.
        """
        parts = []
        while chunk and most > 0:
            if self._member.eof:
                self._begin_member()
            parts.append(self._decompress(chunk, most))
            most -= len(parts[-1])
            chunk = self._member.unused_data
        return b"".join(parts)

    def _begin_member(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise _broken(f"has more than {MAX_MEMBERS} members")
        self._member = zlib.decompressobj(self._window)

    def _decompress(self, chunk: bytes, most: int) -> bytes:
        try:
            return self._member.decompress(chunk, most)
        except zlib.error:
            raise _broken("is broken") from None


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        413,
        f"the body is larger than {max_bytes} bytes (after decompression)",
        fix="send fewer events in one request; with the write key in a header it may have gateway.max_body_bytes",
        headers={"connection": "close"},
    )


def _broken(what: str) -> Refusal:
    return Refusal(
        400, f"the body's content-encoding {what}", field="body", fix="compress the whole body once"
    )
