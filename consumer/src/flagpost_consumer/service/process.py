"""One process: services, one after another, until a signal ends the last one.

In: settings. Out: an exit code.
"""

from __future__ import annotations

import asyncio
import signal
from itertools import count

import structlog

from flagpost_consumer.core.planning.quarantine import Suspects
from flagpost_consumer.service.log import say_start
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Settings
from flagpost_settings.logs import say_loop_error

log = structlog.get_logger(__name__)

MAX_SERVICES = 20
"""How many services one process runs, one after another, if their engines fail."""


async def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; returns the exit code.

    If an engine fails at a record, another service follows in the same process, which knows the record; at the second
    failure the record is quarantined. After too many services the process ends, so that its platform notices.
    """
    say_start(settings)
    suspects = Suspects()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(say_loop_error)
    signalled = asyncio.Event()
    for begun in count(1):
        service = Service(settings, suspects=suspects)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, service, signalled)
        code = await service.run()
        if signalled.is_set() or not service.may_begin_anew or begun >= MAX_SERVICES:
            return code
        log.warning("a new engine begins where the last one failed", begun=begun)
    raise AssertionError("counting has no end")


def _stop(service: Service, signalled: asyncio.Event) -> None:
    """A signal has come, perhaps while a service whose engine failed is ending: none follows it."""
    signalled.set()
    service.stop()
