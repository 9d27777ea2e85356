"""An event loop whose time jumps to the next timer, and the processes that run on it.

In: callbacks, as for any asyncio loop. Out: the same calls, in an order that depends only on the callbacks. A
callback belongs to the process in whose context it was made: those of a dead process never run, those of a frozen
process run when it continues.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

MAX_TURNS_AT_ONCE = 20_000
"""If the loop runs this many turns at the same time, the program spins."""

PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process that runs at present; None: the world."""


class Process:
    """One simulated operating system process."""

    def __init__(self, name: str, loop: SimulatedLoop) -> None:
        self.name = name
        self.is_alive = True
        self.is_cut_off = False
        """Whether it cannot reach any broker."""
        self.clock_step_ms = 0
        """How far its wall clock is ahead."""
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        self._loop = loop
        self._frozen_until = 0.0
        self._waiting: list[asyncio.Handle] = []

    @property
    def is_running(self) -> bool:
        """Whether its code runs at present: it is neither dead nor frozen."""
        return self.is_alive and self._loop.now >= self._frozen_until

    @property
    def reaches_kafka(self) -> bool:
        """Whether brokers receive its requests at present."""
        return self.is_running and not self.is_cut_off

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.is_alive = False
        self._waiting.clear()

    def freeze(self, seconds: float) -> None:
        """Stop all its code for a time, as SIGSTOP does."""
        self._frozen_until = max(self._frozen_until, self._loop.now + seconds)
        self._loop.in_world(self._frozen_until, self._go_on)

    def _go_on(self) -> None:
        if self.is_running:
            waiting, self._waiting = self._waiting, []
            # As in uvloop, timers that became due meanwhile run before callbacks that were ready.
            waiting.sort(key=lambda handle: not isinstance(handle, asyncio.TimerHandle))
            self._loop.run_next(waiting)

    def puts_off(self, handle: asyncio.Handle) -> bool:
        """Whether a callback of this process does not run now; a frozen process keeps it for later."""
        if self.is_running:
            return False
        if self.is_alive:
            self._waiting.append(handle)
        return True


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop. It waits for nothing outside of the simulation."""

    _ready: deque[asyncio.Handle]
    """An attribute of asyncio's own loop."""

    def __init__(self, *, timers_first: bool) -> None:
        """`timers_first`: a due timer runs before callbacks that are ready, as in uvloop."""
        super().__init__()
        self.now = 1000.0
        self.world = copy_context()
        """The context of callbacks that belong to no process."""
        self.listen: Callable[[Any], Any] = _nobody_listens
        self.dial: Callable[[], Awaitable[Any]] = _nobody_answers
        self.connect: Callable[[Callable[[], Any]], Any] = _nobody_listens
        self._timers_first = timers_first
        self._turns_at_once = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self.handlers: dict[tuple[Process | None, int], Callable[[], object]] = {}

    def time(self) -> float:
        """The simulated time in seconds."""
        return self.now

    def in_world(self, moment: float, what: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """Call something at a time, whatever happens to the processes."""
        return self.call_at(moment, what, *arguments, context=self.world)

    def run_next(self, handles: list[asyncio.Handle]) -> None:
        """Put callbacks before all others that are ready."""
        self._ready.extendleft(reversed(handles))

    def _run_once(self) -> None:
        due = self._due()
        if self._timers_first:
            self._ready.extendleft(reversed(due))
        else:
            self._ready.extend(due)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is None or not process.puts_off(handle):
                handle._run()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a time; calls for the same time are made in the order in which they were requested."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something after a delay."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _due(self) -> list[asyncio.TimerHandle]:
        """The timers that are due; if nothing is ready, time jumps to the first timer."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        self._turns_at_once += 1
        if not self._ready:
            if not timers:
                raise AssertionError("nothing will ever happen any more")
            if timers[0][0] > self.now:
                self.now, self._turns_at_once = timers[0][0], 0
        if self._turns_at_once > MAX_TURNS_AT_ONCE:
            raise AssertionError(f"the loop spins at {self.now:.3f}: {list(self._ready)[:3]}")
        due = []
        while timers and timers[0][0] <= self.now:
            due.append(heapq.heappop(timers)[2])
        return due

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: cancelled timers are skipped when they become due."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps, so nothing has to wake it."""

    # What else the service calls of its loop

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *arguments: Any
    ) -> None:
        """Set the handler of a signal to the present process."""
        self.handlers[PROCESS.get(), sig] = lambda: callback(*arguments)

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to a process."""
        self.call_soon(self.handlers[process, number], context=process.context)

    async def create_server(self, *_: Any, **__: Any) -> Any:
        """A server to which nobody connects."""
        return self.listen(None)

    async def create_connection(self, protocol_factory: Callable[[], Any], *_: Any, **__: Any) -> Any:
        """The transport and the protocol of a connection that `dial` has opened."""
        return self.connect(protocol_factory)


def _nobody_listens(*_: Any) -> Any:
    raise OSError("nothing is simulated here")


async def _nobody_answers() -> Any:
    raise OSError("nothing is simulated here")
