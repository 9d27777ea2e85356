"""What commands that read a window of the topics have in common: the window, and what they say when it fails.

In: times as people give them; what reading raises. Out: a window; one line for people. Called by the commands.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import click

from flagpost_consumer.operator.explaining import explained
from flagpost_consumer.operator.reconciliation.extent import Window
from flagpost_consumer.operator.reconciliation.settled import LaterRelease
from flagpost_schemas import UnknownSchema


def window_of(since: int | None, until: int | None) -> Window:
    """The window between two moments, epoch ms. Raises click.UsageError if it is empty."""
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until; the window would be empty")
    return Window(since, until)


def window_explained() -> AbstractContextManager[None]:
    """What reading a window raises becomes a click.ClickException that says what is wrong."""
    return explained("record", UnknownSchema, LaterRelease)
