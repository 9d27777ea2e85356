"""Handles forks and ends of processes for publishers.

In: every publisher, at construction. Out: before a fork each lets its connection settle, and in the child it begins
again; at the end each sends what it can, within a limit for all. Python's hooks only cover os.fork(): a publisher
compares the process id as well (`per_process`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.util import Finalize

EXIT_SECONDS: Final = 0.5
"""How long all publishers together delay the end of the process at most."""

AFTER_ALL_OTHERS: Final = -1000
"""The priority of our finalizer in a child of multiprocessing: the application's finalizers may publish."""


class Lives(Protocol):
    """What needs to know of forks and of the end."""

    def prepare_fork(self) -> None:
        """Called in the process that forks, before it does."""

    def begin_anew(self) -> None:
        """Called in a child after a fork."""

    def end(self, timeout_seconds: float) -> None:
        """Called when the process ends."""


_living: WeakSet[Lives] = WeakSet()


def enrol(lives: Lives) -> None:
    """Call `lives` on forks and at the end, for as long as it lives."""
    _living.add(lives)
    if "multiprocessing" in sys.modules:
        import multiprocessing.util  # noqa: F401, PLC0415 - only where the application has use for it
    hear_of_the_end()


def hear_of_the_end() -> None:
    """Have publishers told when a child of multiprocessing ends, which does not run atexit.

    Call it in each process, after it has started; it imports nothing, because a fork may have copied the import lock.
    """
    _end_of_child.attend()


class _EndOfChild:
    """Multiprocessing's finalizer, called when one of its children ends."""

    def __init__(self) -> None:
        self._attended = 0
        self._finalizer: Finalize | None = None
        self._told_of_children = False

    def attend(self) -> None:
        """Register once in each process. A child forgets what was registered before it began, so it is registered
        again.
        """
        util = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        if not self._told_of_children:
            self._told_of_children = True
            util.register_after_fork(self, _EndOfChild.attend)
        is_child = sys.modules["multiprocessing.process"].parent_process() is not None
        if is_child and not self._is_attended():
            self._attended = os.getpid()
            self._finalizer = util.Finalize(None, _end, exitpriority=AFTER_ALL_OTHERS)

    def _is_attended(self) -> bool:
        return (
            self._attended == os.getpid() and self._finalizer is not None and self._finalizer.still_active()
        )


_end_of_child = _EndOfChild()


def _prepare_fork() -> None:
    _each(lambda lives: lives.prepare_fork())


def _begin_anew() -> None:
    _each(lambda lives: lives.begin_anew())


def _end() -> None:
    deadline = monotonic() + EXIT_SECONDS
    _each(lambda lives: lives.end(max(0.0, deadline - monotonic())))


def _each(call: Callable[[Lives], None]) -> None:
    """What one of them raises concerns no other, and not the application."""
    for lives in list(_living):
        with contextlib.suppress(Exception):
            call(lives)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_prepare_fork, after_in_child=_begin_anew)
atexit.register(_end)
