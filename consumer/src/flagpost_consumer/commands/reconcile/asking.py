"""Shared by commands that read a window of the topics: the window, and their error messages.

In: times as people give them; what reading raises. Out: a window; one line for people. Called by the commands.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.reconcile.settled import LaterRelease
from flagpost_consumer.commands.sources.explaining import explained
from flagpost_consumer.terminal.times import require_order
from flagpost_schemas import UnknownSchema


def window_of(since: int | None, until: int | None) -> Window:
    """The window between two moments, epoch ms. Raises click.UsageError if it is empty."""
    require_order(since, until)
    return Window(since, until)


def window_explained() -> AbstractContextManager[None]:
    """Turn what reading a window raises into a click.ClickException that says what is wrong."""
    return explained("record", UnknownSchema, LaterRelease)
