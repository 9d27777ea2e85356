"""Calls in threads that end with the process.

In: a function. Out: a future of its result. At its end Python waits for the threads of its own executors, such as
those of `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_a_daemon(function: Callable[[], T], thread: str) -> Future[T]:
    """Call a function in a thread of this name. Raises RuntimeError if there can be no more threads."""
    called: Future[T] = Future()
    Thread(target=_call, args=(function, called), name=thread, daemon=True).start()
    return called


def _call(function: Callable[[], T], called: Future[T]) -> None:
    called.set_running_or_notify_cancel()
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - handed to the caller
        called.set_exception(error)
    else:
        called.set_result(result)
