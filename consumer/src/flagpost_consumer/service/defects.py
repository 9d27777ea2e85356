"""Defects of our own: once a step of the engine has raised, its state cannot be trusted.

In: exceptions. Out: that engine is not used any more; the service ends, and another may begin in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from traceback import format_tb
from typing import Any, Protocol, TypeVar, cast

import structlog

from flagpost_consumer.core.planning.quarantine import Suspects, fingerprint
from flagpost_consumer.service.stopping import Stopping

log = structlog.get_logger(__name__)


class Defects:
    """Whether the engine of one service has failed."""

    def __init__(self, suspects: Suspects, stopping: Stopping) -> None:
        """`suspects`: records at which earlier services of this process failed."""
        self._suspects = suspects
        self._stopping = stopping
        self.failed = False
        self.may_begin_anew = False
        """Whether the record at which it failed is known: then another service may go on."""

    def fail(self, error: Exception) -> None:
        """Note a defect of ours: what is not acknowledged is left to whoever comes next."""
        log.error(
            "the engine has failed; it is not used again, and commits nothing more",
            defect=fingerprint(error),  # the exception's message may contain an id
            stack="".join(format_tb(error.__traceback__)),
        )
        self.failed = True
        self.may_begin_anew = self._suspects.blame(error) and not self._stopping.requested.is_set()
        self._stopping.abort()


class _Guarded(Protocol):
    defects: Defects


Method = TypeVar("Method", bound=Callable[..., None])


def vital(method: Method) -> Method:
    """A step of the engine: if it raises, the engine has failed; after that it does nothing."""

    @wraps(method)
    def guarded(self: _Guarded, *arguments: Any) -> None:  # noqa: ANN401 - the method's own
        if self.defects.failed:
            return
        try:
            method(self, *arguments)
        except Exception as error:  # noqa: BLE001 - told, and then the end
            self.defects.fail(error)

    return cast("Method", guarded)
