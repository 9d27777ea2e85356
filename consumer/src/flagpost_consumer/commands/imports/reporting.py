"""Reports refused rows as they come, so that a million of them take no memory.

In: refusals. Out: lines on stderr, one JSON document on stdout, or a file. The file contains the rows themselves, for
whoever fixes them; the others name line and column but no value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Protocol

import click
import orjson

from flagpost_consumer.commands.imports.rows import Refusal
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.terminal.echo import echo, echo_json_text

SHOWN_ON_TERMINAL = 50
MAX_TEXT_CHARACTERS = 500
OWNER_ONLY = 0o600


class Report(Protocol):
    """Receives the refusals of one import."""

    def refuse(self, refusal: Refusal) -> None:
        """Report one refused row."""


class StderrReport:
    """A line for each refused row; on a terminal only for the first ones."""

    def __init__(self, stream: IO[str]) -> None:
        self._most = SHOWN_ON_TERMINAL if stream.isatty() else None
        self._named = 0

    def refuse(self, refusal: Refusal) -> None:
        """Name the row."""
        if self._named == self._most:
            echo("further refused rows are not shown here; --refused FILE writes all of them", err=True)
        elif self._most is None or self._named < self._most:
            where = "" if refusal.column is None else f", column {shown(refusal.column)}"
            echo(f"line {refusal.line}{where}: {shown(refusal.problem)}", err=True)
        self._named += 1


class JsonReport:
    """One JSON document, written while the import runs."""

    def __init__(self) -> None:
        """Nothing is written before there is something to report: an import that cannot begin has no document."""
        self._before = '{"refused":['

    def refuse(self, refusal: Refusal) -> None:
        """Add a member to the document's `refused`."""
        self._write(_as_json(refusal))
        self._before = ","

    def end(self, counts: dict[str, object]) -> None:
        """Write the document's other members."""
        if self._before == ",":
            self._before = ""
        self._write(b"]," + orjson.dumps(counts)[1:] + b"\n")

    def _write(self, text: bytes) -> None:
        echo_json_text(self._before.encode() + text)


class FileReport:
    """A JSON object for each refused row, with the row as it is in the file."""

    def __init__(self, path: str) -> None:
        """Open the file; a new one is readable only by its owner, because rows are personal.

        Raises:
            click.ClickException: it cannot be written.
        """
        self._file = open_for_owner(path, "--refused")

    def refuse(self, refusal: Refusal) -> None:
        """Write the row and why it is refused. Raises click.ClickException if it cannot be written."""
        text = refusal.text
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        with explained_file("--refused"):
            self._file.write(_as_json(refusal, row=raw.decode("utf-8", "replace")) + b"\n")

    def close(self) -> None:
        """Write what is not written yet. Raises click.ClickException if it cannot be written."""
        with explained_file("--refused"):
            self._file.close()


def open_for_owner(path: str, option: str) -> BinaryIO:
    """Open a file for writing; a new one is readable only by its owner. Raises click.ClickException."""
    with explained_file(option):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY), "wb")


@contextmanager
def explained_file(option: str) -> Iterator[None]:
    """Report an error with an option's file in one line."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"the file of {option} cannot be written: {error.strerror}") from None


def _as_json(refusal: Refusal, **more: str) -> bytes:
    column = None if refusal.column is None else shown(refusal.column)
    return orjson.dumps({"line": refusal.line, "column": column, "problem": shown(refusal.problem), **more})


def shown(text: str) -> str:
    """A text in one line, cut to the length for a report."""
    return legible(text, MAX_TEXT_CHARACTERS)
