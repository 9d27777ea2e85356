"""Secrets that may change while we run.

In: where a secret is read from. Out: its text as it was when it could last be read.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from flagpost_settings.problems import SettingsError
from flagpost_settings.secrets import SecretSource

log = structlog.get_logger(__name__)


class FreshSecret:
    """One secret; `refresh` is to be called now and then."""

    def __init__(self, source: SecretSource | None) -> None:
        """Read it; None: there is none. Raises SettingsError where it cannot be read."""
        self._source = source
        self.text = "" if source is None else source.current()
        """As it is now; empty where there is none."""

    def refresh(self) -> None:
        """Take up what changed; a file that cannot be read just now changes nothing."""
        if self._source is None or not self._source.changed():
            return
        with suppress(SettingsError):  # it went away since that look
            self.text = self._source.current()
            log.info("a secret has changed", secret=repr(self._source))
