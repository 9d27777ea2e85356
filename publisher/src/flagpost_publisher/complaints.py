"""Errors to `on_error`: seldom, and never from the application's own call.

In: `note`, from any thread. Out: `tell`, called by the publisher's thread, hands each kind of error to the
log and to `on_error` at once, and then at most every ten seconds, with the number there were.
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
)  # otherwise Python prints warnings to stderr where nobody set up logging


class Complaints:
    """The errors that have not been told yet: one, and a count, of each kind."""

    def __init__(self, on_error: Callable[[Exception], object] | None) -> None:
        """`on_error` may raise: it is not heard."""
        self._on_error = on_error
        self._lock = RLock()
        self._untold: dict[str, PublisherError] = {}
        self._next_at: dict[str, float] = {}

    def note(self, error: PublisherError) -> None:
        """Keep `error` to be told."""
        with self._lock:
            earlier = self._untold.get(error.kind)
            error.count += earlier.count if earlier else 0
            self._untold[error.kind] = error

    def tell(self) -> None:
        """Tell of each kind that was not told of in the last ten seconds."""
        now = monotonic()
        for kind in [kind for kind in list(self._untold) if now >= self._next_at.get(kind, now)]:
            self._next_at[kind] = now + INTERVAL_SECONDS
            self._tell(kind)

    def tell_now(self) -> None:
        """Tell what there is."""
        for kind in list(self._untold):
            self._tell(kind)

    def _tell(self, kind: str) -> None:
        with self._lock:
            error = self._untold.pop(kind, None)
        if error is None:
            return
        log.warning("%s (%d times)", error, error.count)
        if self._on_error is not None:
            with contextlib.suppress(Exception):
                self._on_error(error)
