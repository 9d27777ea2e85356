"""Waits for librdkafka without stopping an application whose threads are greenlets.

In: something of librdkafka's that waits. Out: its result. gevent and eventlet can replace Python's threads by
greenlets, which all run in one thread, and change only where Python waits: a call that waits in C stops the whole
application. Where threads are threads, everything here is called as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

T = TypeVar("T")

LOOK_SECONDS: Final = 0.01
"""How often a greenlet looks whether it has waited enough."""


class _Real(NamedTuple):
    """What there is instead, where threads are greenlets."""

    start: Callable[[Callable[..., object], tuple[Any, ...]], object]
    """Starts a real thread."""
    sleep: Callable[[float], object]
    """Lets the other greenlets go on."""


def wait(method: Callable[[float], object], seconds: float) -> None:
    """Call what waits for at most this long, such as `poll`; it may end early, and is to be called again."""
    real = _real()
    if real is None or seconds <= 0:
        method(seconds)
    else:
        method(0.0)
        real.sleep(min(seconds, LOOK_SECONDS))


def call(slow: Callable[[], T]) -> T:
    """Call what may take long and cannot be divided, and needs nothing of the application's threads.

    Raises what it raises, and RuntimeError if there can be no more threads.
    """
    real = _real()
    if real is None:
        return slow()
    ended: list[Callable[[], T]] = []
    real.start(_end, (slow, ended))
    while not ended:
        real.sleep(LOOK_SECONDS)
    return ended[0]()


def _end(slow: Callable[[], T], ended: list[Callable[[], T]]) -> None:
    """In the real thread."""
    try:
        result = slow()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        ended.append(partial(_raise, error))
    else:
        ended.append(lambda: result)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _real() -> _Real | None:
    """None: threads are threads."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return _Real(gevent.get_original("_thread", "start_new_thread"), sys.modules["gevent"].sleep)
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return _Real(eventlet.original("_thread").start_new_thread, sys.modules["eventlet"].sleep)
    return None
