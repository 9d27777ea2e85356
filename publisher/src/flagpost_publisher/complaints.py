"""Errors to `on_error`: seldom, and never from the application's own call.

In: `note`, from any thread. Out: `tell`, called by the publisher's thread, hands each kind of error to
`on_error` at most once a second, with the number there were, and to the log.
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

INTERVAL_SECONDS: Final = 1.0

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
        self._next_at = 0.0

    def note(self, error: PublisherError) -> None:
        """Keep `error` to be told."""
        with self._lock:
            earlier = self._untold.get(error.kind)
            error.count += earlier.count if earlier else 0
            self._untold[error.kind] = error

    def tell(self) -> None:
        """Tell what there is, unless something was told less than a second ago."""
        if self._untold and monotonic() >= self._next_at:
            self.tell_now()

    def tell_now(self) -> None:
        """Tell what there is."""
        with self._lock:
            untold, self._untold = self._untold, {}
        self._next_at = monotonic() + INTERVAL_SECONDS
        for error in untold.values():
            self._tell(error)

    def _tell(self, error: PublisherError) -> None:
        log.warning("%s (%d times)", error, error.count)
        if self._on_error is not None:
            with contextlib.suppress(Exception):
                self._on_error(error)
