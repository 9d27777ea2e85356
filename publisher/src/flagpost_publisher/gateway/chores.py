"""Chores: what the gateway does again and again besides answering requests.

In: an attempt. Out: nothing, once an attempt has said that the chore is done. An attempt that raises something
unexpected is logged, and is not the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

import structlog

from flagpost_settings.logs import Lately, where

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def until_done(chore: str, attempt: Callable[[], Awaitable[bool]], pause_seconds: float) -> None:
    """Call `attempt` until it returns True, with a pause between two calls; `chore` is its name in the log."""
    lately = Lately()
    while True:
        try:
            if await attempt():
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may succeed
            found = where(error)
            if lately.is_news(found["at"]):
                log.error("a chore has failed unexpectedly, and is tried again", chore=chore, **found)  # noqa: TRY400
        await asyncio.sleep(pause_seconds)


async def in_a_daemon(function: Callable[[], T]) -> T:
    """Call a function in a thread that ends with the process: Python waits for those of asyncio.to_thread."""
    called: Future[T] = Future()

    def call() -> None:
        called.set_running_or_notify_cancel()
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            called.set_exception(error)
        else:
            called.set_result(result)

    Thread(target=call, name="flagpost-gateway-daemon", daemon=True).start()
    return await asyncio.wrap_future(called)
