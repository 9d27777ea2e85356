"""Threads that run on the event loop, one at a time: greenlets.

In: the calls of `threading`, `concurrent.futures` and `asyncio` that the product's threads make. Out: the same
results, but a call that would block lets the loop run meanwhile. A thread is interrupted only where it waits, so only
the seed decides a run; how long a woken thread waits for its turn is random.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Collection, Coroutine
from contextvars import copy_context
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from simulation.loop import SimulatedLoop

T = TypeVar("T")

SWITCH_SECONDS = 0.0005
"""A thread that is woken runs after this long at most."""


class Waiter:
    """A thread that waits."""

    __slots__ = ("context", "is_done", "thread", "timer")

    def __init__(self, thread: greenlet) -> None:
        self.thread = thread
        self.context = copy_context()
        self.timer: asyncio.TimerHandle | None = None
        self.is_done = False


class Scheduler:
    """Switches between the threads of one run and its loop."""

    def __init__(
        self, loop: SimulatedLoop, random: Random, on_crash: Callable[[str, BaseException], None]
    ) -> None:
        """`on_crash` is called with what a thread raises."""
        self.loop = loop
        self.random = random
        self.is_closed = False
        self.on_crash = on_crash
        self._hub = getcurrent()
        self._threads: list[greenlet] = []
        self.unbegun: set[Coroutine[Any, Any, Any]] = set()
        """Coroutines that threads gave to the loop and that it has not started: it never starts a dead process's."""

    def park(self, waiters: list[Waiter] | None, seconds: float | None) -> bool:
        """Let others run until this thread is woken, or for a time; returns whether it was woken."""
        if self.is_closed:
            raise GreenletExit
        thread = getcurrent()
        if thread is self._hub:
            raise AssertionError("the event loop would wait for a thread")
        waiter = Waiter(thread)
        if seconds is not None:
            waiter.timer = self.loop.call_later(max(0.0, seconds), self._resume, waiter, False)
        if waiters is not None:
            waiters.append(waiter)
        try:
            return bool(self._hub.switch())
        finally:
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)

    def wake(self, waiters: list[Waiter]) -> None:
        """Let waiting threads continue soon."""
        for waiter in waiters:
            delay = self.random.random() * SWITCH_SECONDS
            self.loop.call_later(delay, self._resume, waiter, True, context=waiter.context)
        waiters.clear()

    def _resume(self, waiter: Waiter, woken: bool) -> None:
        if waiter.is_done:
            return
        waiter.is_done = True
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.thread.switch(woken)

    def start(self, name: str, what: Callable[[], object]) -> None:
        """Start a thread in the process of the caller."""
        thread = greenlet(lambda: self._run(name, what))
        thread.gr_context = copy_context()
        self._threads.append(thread)
        self.loop.call_soon(thread.switch)

    def _run(self, name: str, what: Callable[[], object]) -> None:
        try:
            what()
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001 - as a thread's last words
            self.on_crash(name, error)

    def close(self) -> None:
        """End all threads, and close the coroutines that they gave to the loop."""
        self.is_closed = True
        for thread in self._threads:
            if thread:
                thread.throw(GreenletExit)
        for coroutine in self.unbegun:
            coroutine.close()


_current: list[Scheduler] = []


def scheduler() -> Scheduler:
    """The scheduler of the present run."""
    return _current[-1]


def use(new: Scheduler) -> None:
    """Set the scheduler of a run."""
    _current[:] = [new]


def forget() -> None:
    """Let go of the scheduler of the last run."""
    _current.clear()


class Thread:
    """`threading.Thread`."""

    def __init__(
        self,
        *,
        target: Callable[..., object],
        args: tuple[object, ...] = (),
        name: str = "thread",
        daemon: bool = False,
    ) -> None:
        del daemon
        self._target = target
        self._arguments = args
        self.name = name
        self._is_alive = False
        self._joining: list[Waiter] = []

    def start(self) -> None:
        self._is_alive = True
        scheduler().start(self.name, self._run)

    def _run(self) -> None:
        try:
            self._target(*self._arguments)
        finally:
            self._is_alive = False
            if not scheduler().is_closed:
                scheduler().wake(self._joining)

    def is_alive(self) -> bool:
        return self._is_alive

    def join(self, timeout: float | None = None) -> None:
        if self._is_alive:
            scheduler().park(self._joining, timeout)


class Event:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[Waiter] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        scheduler().wake(self._waiters)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            scheduler().park(self._waiters, timeout)
        return self._is_set


class Lock:
    """`threading.Lock` and `threading.RLock`."""

    def __init__(self) -> None:
        self._owner: greenlet | None = None
        self._depth = 0
        self._waiters: list[Waiter] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        del timeout
        me = getcurrent()
        while self._owner not in (None, me):
            if not blocking:
                return False
            scheduler().park(self._waiters, None)
        self._owner, self._depth = me, self._depth + 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if not scheduler().is_closed:
                scheduler().wake(self._waiters)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """`threading.Condition`: no other thread runs between two waits, so it needs no lock."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def __enter__(self) -> None:
        """Nothing to lock."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to unlock."""

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        loop = scheduler().loop
        deadline = None if timeout is None else loop.now + timeout
        while not predicate():
            left = None if deadline is None else deadline - loop.now
            if left is not None and left <= 0:
                return False
            scheduler().park(self._waiters, left)
        return True

    def notify(self) -> None:
        scheduler().wake(self._waiters)

    notify_all = notify


class Future(concurrent.futures.Future[T]):
    """`concurrent.futures.Future`, for which a simulated thread may wait."""

    def result(self, timeout: float | None = None) -> T:
        wait([self], timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        wait([self], timeout)
        return super().exception(0)


def wait(futures: Collection[concurrent.futures.Future[Any]], timeout: float | None = None) -> None:
    """`concurrent.futures.wait`, which always waits for all futures."""
    loop = scheduler().loop
    deadline = None if timeout is None else loop.now + timeout
    for future in futures:
        ended = Event()
        future.add_done_callback(partial(_set, ended))
        if not ended.wait(None if deadline is None else deadline - loop.now):
            return


def _set(event: Event, _: concurrent.futures.Future[Any]) -> None:
    event.set()


def run_coroutine_threadsafe(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Future[T]:
    """`asyncio.run_coroutine_threadsafe`."""
    future: Future[T] = Future()
    unbegun = scheduler().unbegun
    unbegun.add(coroutine)

    def begin() -> None:
        unbegun.remove(coroutine)
        try:
            asyncio.futures._chain_future(asyncio.ensure_future(coroutine, loop=loop), future)  # type: ignore[attr-defined]
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            raise

    loop.call_soon_threadsafe(begin)
    return future


async def to_thread(what: Callable[..., T], /, *arguments: Any) -> T:
    """`asyncio.to_thread`."""
    loop = scheduler().loop
    ended: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = what(*arguments)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, result)

    scheduler().start("to_thread", run)
    return await ended
