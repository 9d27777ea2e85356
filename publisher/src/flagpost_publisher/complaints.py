"""Reports errors to `on_error`: rarely, and never from the application's own call.

In: `note`, from any thread. Out: `tell`, called by the publisher's thread, passes each kind of error to the log and
to `on_error` at once, and then at most every ten seconds, with the number of errors.
"""

from __future__ import annotations

import contextlib
import logging
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from flagpost_publisher.errors import PublisherError

INTERVAL_SECONDS: Final = 10.0

log = logging.getLogger("flagpost_publisher")
log.addHandler(
    logging.NullHandler()
)  # otherwise Python prints warnings to stderr if nobody has set up logging


def say_where_nobody_logs(error: PublisherError) -> None:
    """Write `error` to stderr if no log handler of the application would get it. Never raises."""
    with contextlib.suppress(Exception):
        if logging.lastResort is not None and not _is_logged():
            logging.lastResort.handle(
                log.makeRecord(log.name, logging.WARNING, __file__, 0, "%s", (error,), None)
            )


def _is_logged() -> bool:
    at: logging.Logger | None = log
    while at is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False


class Complaints:
    """The errors that have not been reported yet: one of each kind, and their number."""

    def __init__(self, on_error: Callable[[Exception], object] | None) -> None:
        """`on_error` may raise anything: that is ignored."""
        self._on_error = on_error
        self._lock = RLock()
        self._untold: dict[str, PublisherError] = {}
        self._next_at: dict[str, float] = {}

    def note(self, error: PublisherError) -> None:
        """Keep `error` until it is reported."""
        with self._lock:
            earlier = self._untold.get(error.kind)
            error.count += earlier.count if earlier else 0
            self._untold[error.kind] = error

    def tell(self) -> None:
        """Report each kind that was not reported in the last ten seconds."""
        now = monotonic()
        for kind in [kind for kind in list(self._untold) if now >= self._next_at.get(kind, now)]:
            self._next_at[kind] = now + INTERVAL_SECONDS
            self._tell(kind)

    def tell_now(self) -> None:
        """Report everything now."""
        for kind in list(self._untold):
            self._tell(kind)

    def _tell(self, kind: str) -> None:
        with self._lock:
            error = self._untold.pop(kind, None)
        if error is None:
            return
        # Of any kind: sys.exit() would end the publisher's thread.
        with contextlib.suppress(BaseException):
            log.warning("%s (%d times)", error, error.count)
        if self._on_error is not None:
            with contextlib.suppress(BaseException):
                self._on_error(error)
