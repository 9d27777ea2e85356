"""The standard streams of a command, so that any text can be printed and a failure to print is one line.

In: the process's streams, which may be closed, full, or of an encoding that lacks characters. Out: streams that a
command can use without asking. Called once, before the command line is read.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import click

READER_GONE_EXIT_CODE: Final = 141
"""Of a command whose exit code is a verdict, if its output was not read to the end: 128 + SIGPIPE, as of others."""


class ReaderGone(click.exceptions.Exit):
    """Nobody reads stdout any more (`| head`). Nothing is printed, and the exit code is 0."""


class _Stdout(io.FileIO):
    """The raw stdout. After a write that fails, all others go nowhere, those at the interpreter's end too."""

    instead_of: TextIO | None = None
    """The stream whose place it takes, and that closes the file with its last reference."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Write, or end the command.

        Raises:
            ReaderGone: a pipe's reader has closed it.
            click.ClickException: stdout is closed, or its disk is full.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            self._drop_the_rest()
            raise ReaderGone from None
        except OSError as error:
            self._drop_the_rest()
            raise click.ClickException(f"stdout cannot be written: {error.strerror}") from None

    def _drop_the_rest(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def make_streams_usable() -> None:
    """Make sys.stdin, sys.stdout and sys.stderr streams that a command can use.

    A character that an encoding lacks is written as its escape (`\\u2192`).
    """
    # In this order each closed stream gets its own number back, the lowest that is free. Else a connection to Kafka
    # could have it.
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - for as long as the process lives, as below
    if sys.stdout is None:
        raw, encoding, by_line = _Stdout(os.open(os.devnull, os.O_RDONLY), "w"), "utf-8", False
    else:
        raw = _Stdout(sys.stdout.fileno(), "w", closefd=False)
        raw.instead_of = sys.stdout
        encoding, by_line = sys.stdout.encoding, bool(getattr(sys.stdout, "line_buffering", False))
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line
    )
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    else:
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # the interpreter's own
