"""What becomes of publishers when their process forks or ends.

In: every publisher, at construction. Out: before a fork each is asked to let its connection settle; in a forked
child each is told to begin anew (its threads and its
connection stayed with the parent); at exit each is told to send what it can, within a bound for all.
"""

from __future__ import annotations

import atexit
import os
from time import monotonic
from typing import Final, Protocol
from weakref import WeakSet

EXIT_SECONDS: Final = 0.5
"""The longest that all publishers together hold up the end of the process."""


class Lives(Protocol):
    """What has to know of forks and of the end."""

    def prepare_fork(self) -> None:
        """Called in the process that forks, before it does."""

    def begin_anew(self) -> None:
        """Called in a child after a fork."""

    def end(self, timeout_seconds: float) -> None:
        """Called when the process ends."""


_living: WeakSet[Lives] = WeakSet()


def enrol(lives: Lives) -> None:
    """Tell `lives` of forks and of the end, for as long as it lives."""
    _living.add(lives)


def _prepare_fork() -> None:
    for lives in list(_living):
        lives.prepare_fork()


def _begin_anew() -> None:
    for lives in list(_living):
        lives.begin_anew()


def _end() -> None:
    deadline = monotonic() + EXIT_SECONDS
    for lives in list(_living):
        lives.end(max(0.0, deadline - monotonic()))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_prepare_fork, after_in_child=_begin_anew)
atexit.register(_end)
