"""Shows how far long work is: a bar on a terminal, a plain line now and then elsewhere, always on stderr.

In: what the work goes through, and how much of it there is at most. Out: the same, one by one; nothing on stdout,
so that `--json` stays JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import track

LINE_SECONDS = 5.0
"""How far apart plain lines are; what is done sooner says nothing."""

Item = TypeVar("Item")


def watched(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Go through `items`, and show it; `total` may be more than there are (offsets have holes)."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total=total, console=console, transient=True)
    else:
        yield from told(items, what, total, time.monotonic)


def told(items: Iterable[Item], what: str, total: int, clock: Callable[[], float]) -> Iterator[Item]:
    """Go through `items`, with a line every few seconds of the clock's."""
    said_at = clock()
    for number, item in enumerate(items, start=1):
        yield item
        if clock() - said_at >= LINE_SECONDS:
            said_at = clock()
            click.echo(f"{what}: {number:,} of {total:,}", err=True)
