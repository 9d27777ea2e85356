"""Chores: what the gateway does again and again besides answering requests.

In: an attempt. Out: nothing, once an attempt has said that the chore is done. An attempt that raises something
unexpected is logged, and is not the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from flagpost_settings.logs import Lately, where

log = structlog.get_logger(__name__)


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
