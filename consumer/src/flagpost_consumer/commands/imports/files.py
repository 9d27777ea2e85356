"""The file to import, as a stream of bytes.

In: a path, or `-` for standard input. Out: its bytes, decompressed if they are gzip, and how far they have been read.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from flagpost_consumer.commands.imports.rows import FileProblem
from flagpost_schemas.text_encoding import BEGINNING_BYTES, foreign_encoding

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 262_144
MARK_BYTES = 4
"""The longest signature at the beginning of a file: UTF-32's, and a zip's."""

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = cast("io.BufferedIOBase", inner)
        self.count = 0

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Like the inner stream's, but with only one read of it; at first only as much as the signature has.

        No more is waited for: a pipe may have rows now and others much later.
        """
        room = memoryview(buffer).cast("B")
        least = min(MARK_BYTES, len(room))
        count = read = self._inner.readinto1(room)
        while self.count == 0 and read and count < least:
            read = self._inner.readinto1(room[count:])
            count += read
        self.count += count
        return count


class Source:
    """An open file."""

    def __init__(self, inner: BinaryIO, total_bytes: int | None) -> None:
        self._counted = _Counted(inner)
        self.total_bytes = total_bytes
        """None if unknown: a pipe."""
        self.stream: io.BufferedReader[Any] = io.BufferedReader(self._counted, BUFFER_BYTES)
        """The bytes, decompressed."""
        if self._beginning().startswith(_GZIP):
            unpacked = gzip.GzipFile(fileobj=self.stream)
            self.stream = io.BufferedReader(cast("io.RawIOBase", unpacked), BUFFER_BYTES)
        beginning = self._beginning()
        if beginning.startswith(_ZIP):
            raise FileProblem("it is a zip archive or an Excel workbook; save the table as CSV (UTF-8)")
        if (encoding := foreign_encoding(beginning)) is not None:
            raise FileProblem(f"it is {encoding}; save it as UTF-8")

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read, before decompression."""
        return self._counted.count

    def _beginning(self) -> bytes:
        try:
            return self.stream.peek(BEGINNING_BYTES)
        except READING_FAILS as error:
            raise FileProblem(f"it cannot be read: {error}") from None


READING_FAILS = (OSError, EOFError, zlib.error)
"""What reading raises for a failing disk, and for gzip that is damaged or ends early."""


@contextmanager
def opened(path: str) -> Iterator[Source]:
    """Open a file for the duration of the block; `-` is standard input, which stays open.

    Raises:
        FileProblem: it cannot be opened or read, or is of an unsupported kind.
    """
    if path == "-":
        yield Source(sys.stdin.buffer, None)
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise FileProblem(f"it cannot be read: {error.strerror}") from None
    with file:
        yield Source(file, Path(path).stat().st_size if Path(path).is_file() else None)
