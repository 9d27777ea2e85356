"""Shows the progress of long work: a bar on a terminal, a plain line now and then elsewhere, always on stderr.

In: the items of the work, and their greatest possible number. Out: the same items, one by one; nothing on stdout, so
that `--json` stays JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from flagpost_consumer.terminal.echo import echo
from flagpost_consumer.terminal.rich_console import Terminal

LINE_SECONDS = 5.0
"""The time between plain lines; work that is done sooner prints none."""

Item = TypeVar("Item")


def watched(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Iterate over `items` and show the progress; `total` may be more than there are (offsets have holes)."""
    console = Terminal(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total=total, console=console, transient=True)
    else:
        yield from told(items, what, total, time.monotonic)


def told(items: Iterable[Item], what: str, total: int, clock: Callable[[], float]) -> Iterator[Item]:
    """Iterate over `items`, and print a line every few seconds."""
    said_at = clock()
    for number, item in enumerate(items, start=1):
        yield item
        if clock() - said_at >= LINE_SECONDS:
            said_at = clock()
            echo(f"{what}: {number:,} of {total:,}", err=True)


@contextmanager
def measured(what: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many bytes of work are done; returns the function to call with the number, now and then.

    `total_bytes` None: unknown.
    """
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total_bytes, time.monotonic)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    # What is printed to stdout meanwhile must stay there; lines on stderr go above the bar.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how much of the work is done; returns the function to call with the number, now and then."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield _count_lines(what, total, time.monotonic)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _count_lines(what: str, total: int, clock: Callable[[], float]) -> Callable[[int], None]:
    """Print a line every few seconds."""
    said_at = clock()

    def tell(done: int) -> None:
        nonlocal said_at
        if clock() - said_at >= LINE_SECONDS:
            said_at = clock()
            echo(f"{what}: {done:,} of {total:,}", err=True)

    return tell


def _lines(what: str, total_bytes: int | None, clock: Callable[[], float]) -> Callable[[int], None]:
    """Print a line every few seconds."""
    said_at = clock()
    total = "" if total_bytes is None else f" of {total_bytes / 1e6:,.1f}"

    def tell(done: int) -> None:
        nonlocal said_at
        if clock() - said_at >= LINE_SECONDS:
            said_at = clock()
            echo(f"{what}: {done / 1e6:,.1f}{total} MB", err=True)

    return tell
