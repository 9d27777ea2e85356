"""One HTTP answer, read as its bytes arrive; the status first.

In: what a connection receives. Out: a reply with everything that could be read, from the moment at which the status
is known. What follows the status may be cut short, compressed, over a limit or not HTTP at all: it is read as far as
possible, and never changes the status. Nothing is decompressed. aiohttp's parser does the reading; if it fails in the
middle of a head, the status line is looked for in the bytes themselves. Most answers are byte for byte the same as an
earlier one, because their date changes once a second: these are not parsed again.

Of aiohttp's inner parts this uses `HttpResponseParser` (with `feed_data` and `feed_eof`), `RawResponseMessage` (its
`code`, `headers` and `should_close`), `StreamReader.total_bytes`, and `BaseProtocol` with its `pause_reading` and
`resume_reading`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

MAX_ANSWER_BYTES = 1_048_576
"""The rest of a longer answer is not read: the errors of 1,000 metadata records take a fraction of this."""
MAX_HEADER_BYTES = 65_536
"""A longer header, or reason, ends the reading; the status is known by then."""
MAX_HEADERS = 1_000
MAX_HEAD_BYTES = 1_048_576
"""Heads that have not ended are kept up to this size: endless interim answers are not an answer."""
MAX_REMEMBERED = 64
"""After this many remembered answers all are forgotten, and it begins again."""
MAX_REMEMBERED_BYTES = 1_024
"""A longer answer is not remembered."""
NEVER_PAUSE_BYTES = 1 << 30
"""The parser's own limit: beyond it the parser would pause the connection, but we close it long before."""

INTERIM = range(100, 200)
SWITCHING_PROTOCOLS = 101
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})[ \r\n]")
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """What could be read of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerReader:
    """Reads the answers of one connection, in place of aiohttp's own reader (`set_parser`)."""

    def __init__(self, on_end: Callable[[bool], None], remembered: dict[bytes, Reply]) -> None:
        """`on_end` is called once for each answer, with whether it was complete and the connection can be used again.

        `remembered`: complete answers that came in one piece, by their bytes; several readers may share it. A parser
        knows nothing but the bytes that it was fed, so the same bytes are the same answer.
        """
        self._on_end = on_end
        self._remembered = remembered
        self._loop = asyncio.get_running_loop()
        self._output = _NeverPaused(self._loop)
        self.rest()

    def rest(self) -> None:
        """Expect no answer before `begin`."""
        self._ended = True
        self.is_untouched = True
        """Whether no byte has arrived since."""

    def begin(self, max_body_bytes: int) -> None:
        """Expect an answer, and read at most this much of its body."""
        self._max_body_bytes = max_body_bytes
        self._parser: HttpResponseParser | None = None
        self._only_piece: bytes | None = None
        """The bytes received so far, as long as they may be a complete short answer."""
        self._known: Reply | None = None
        self._ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take received bytes. Returns what aiohttp expects of a reader: no error, nothing left over."""
        self.is_untouched = False
        if not self._ended:
            self._take(data)
        return False, b""

    def feed_eof(self) -> None:
        """The connection has ended."""
        self.is_untouched = False
        if not self._ended:
            self._end(whole=False)

    def reply(self) -> Reply | None:
        """What is known so far; None: not even the status."""
        if self._known is not None or self._parser is None:
            return self._known
        if self._message is None:
            status = _status_in(self._head)
            return None if status is None else Reply(status, {}, b"")
        return Reply(self._message.code, self._message.headers, self._body())

    def _take(self, data: bytes) -> None:
        if self._parser is not None:
            self._only_piece = None
            self._parse(self._parser, data)
            return
        if len(data) <= min(MAX_REMEMBERED_BYTES, self._max_body_bytes):
            self._known = self._remembered.get(data)
            self._only_piece = data
        if self._known is not None:
            self._end(whole=True)
        else:
            self._parse(self._new_parser(), data)

    def _new_parser(self) -> HttpResponseParser:
        """Each answer has a parser of its own: one that has read an answer may hold the beginning of another,
        unexpected one, and would take it for the answer to the next request.
        """
        self._parser = HttpResponseParser(
            self._output,
            self._loop,
            NEVER_PAUSE_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEADER_BYTES,
            payload_exception=ClientPayloadError,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._head = bytearray()
        self._message: RawResponseMessage | None = None
        self._payload: StreamReader | None = None
        self._content = b""
        return self._parser

    def _parse(self, parser: HttpResponseParser, data: bytes) -> None:
        if self._message is None:
            self._head += data
        try:
            messages, upgraded, _ = parser.feed_data(data)
        except Exception:  # noqa: BLE001 - whatever the parser cannot read: what is known is known
            self._end(whole=False)
            return
        finals = [(m, payload) for m, payload in messages if not _is_interim(m.code)]
        if finals and self._message is None:
            self._message, self._payload = finals[0]
            self._head.clear()
        if upgraded or self._is_too_much():
            self._end(whole=False)
        elif self._message is not None and self._payload is not None and self._payload.is_eof():
            is_last = not messages or messages[-1][0] is self._message
            whole = is_last and not self._message.should_close and not _has_begun_another(parser)
            if whole:
                self._remember()
            self._end(whole=whole)

    def _remember(self) -> None:
        """Keep a complete answer that came in one piece."""
        self._known = self.reply()
        if self._only_piece is None or self._known is None:
            return
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[self._only_piece] = self._known

    def _is_too_much(self) -> bool:
        if self._payload is None:
            return len(self._head) > MAX_HEAD_BYTES
        return self._payload.total_bytes >= self._max_body_bytes

    def _body(self) -> bytes:
        if self._payload is not None and self._payload.exception() is None:
            self._content += self._payload.read_nowait()
        return self._content[: self._max_body_bytes]

    def _end(self, *, whole: bool) -> None:
        self._ended = True
        self._on_end(whole)


class _NeverPaused(BaseProtocol):
    """Stands in for the connection, which the parser asks to pause: an answer that is too long is not read on
    instead.
    """

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


def _has_begun_another(parser: HttpResponseParser) -> bool:
    """Whether the beginning of an unexpected answer came with the end of the one that was read."""
    try:
        return parser.feed_eof() is not None
    except Exception:  # noqa: BLE001 - whatever it is that has begun
        return True


def _is_interim(status: int) -> bool:
    return status in INTERIM and status != SWITCHING_PROTOCOLS


def _status_in(head: bytearray) -> int | None:
    """The status of the first answer that is not an interim one, in bytes that the parser could not read."""
    begin = 0
    while (line := _STATUS_LINE.match(head, begin)) is not None:
        status = int(line[1])
        if not _is_interim(status):
            return status
        end = head.find(_END_OF_HEAD, begin)
        if end < 0:
            return None
        begin = end + len(_END_OF_HEAD)
    return None
