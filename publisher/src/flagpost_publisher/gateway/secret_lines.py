"""Secrets that may change while the gateway runs, one a line, and how errors in their file are handled.

In: the source of a setting's secrets. Out: the present ones. A file that is missing or empty contains none, a line
that cannot be a secret is ignored, and each error is logged and counted.
"""

from __future__ import annotations

import structlog

from flagpost_settings.problems import SettingsError
from flagpost_settings.secrets import SecretListSource

log = structlog.get_logger(__name__)


class SecretLines:
    """The secrets of one setting; call `refresh` regularly."""

    def __init__(self, source: SecretListSource) -> None:
        """Read them; a file that cannot be read is no error here."""
        self._source = source
        self.lines: tuple[str, ...] = ()
        """Each line, in its place; an empty text if it cannot be a secret."""
        self._problem: str | None = None
        self.refresh()

    @property
    def setting(self) -> str:
        """Its name, such as `gateway.write_keys_file`."""
        return self._source.key

    @property
    def secrets(self) -> list[str]:
        """The usable secrets."""
        return [line for line in self.lines if line]

    @property
    def wrong(self) -> int:
        """How many lines cannot be secrets; 1 if the whole file cannot be read, or is empty."""
        return self.lines.count("") if self.lines else 1

    def refresh(self) -> bool:
        """Read the secrets again; returns whether they have changed."""
        before, problem_before = self.lines, self._problem
        self.lines, self._problem = self._read()
        if self._problem is not None and self._problem != problem_before:
            log.error(
                "secrets cannot be used, and clients that send them are refused: fix the source they are read from",
                setting=self.setting,
                problem=self._problem,
                usable=len(self.secrets),
            )
        return before != self.lines

    def _read(self) -> tuple[tuple[str, ...], str | None]:
        try:
            lines = self._source.lines()
        except SettingsError as error:
            return (), str(error)
        wrong = [str(number) for number, line in enumerate(lines, start=1) if not line]
        if not wrong:
            return lines, None
        return lines, f"line {', '.join(wrong[:10])}: a secret {self._source.otherwise}"
