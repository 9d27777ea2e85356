"""How far the reading is: a bar on a terminal, a plain line now and then elsewhere, always on stderr.

In: what is read, how much there is, how much more is read. Out: nothing on stdout, so that `--json` stays JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 5.0
"""How far apart plain lines are; what is read sooner says nothing."""

Advance = Callable[[int], None]
"""Told how much more has been read."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show how much of `total` is read for as long as the block runs."""
    if not sys.stderr.isatty():
        yield PlainLines(what, total, time.monotonic)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


class PlainLines:
    """Writes a line every few seconds."""

    def __init__(self, what: str, total: int, clock: Callable[[], float]) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._done = 0
        self._said_at = clock()

    def __call__(self, more: int) -> None:
        """Count, and say so if it is time."""
        self._done += more
        now = self._clock()
        if now - self._said_at >= LINE_SECONDS:
            self._said_at = now
            click.echo(f"{self._what}: {self._done:,} of {self._total:,}", err=True)
