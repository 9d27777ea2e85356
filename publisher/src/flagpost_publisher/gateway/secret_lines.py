"""Secrets that may change while we run, one a line, and what becomes of a file that is not as it should be.

In: where a setting's secrets are read from. Out: those that are there now. What is not there is not let in: a file
that is gone or empty holds none, a line that can be no secret is none, and each is logged and counted.
"""

from __future__ import annotations

import structlog

from flagpost_settings.problems import SettingsError
from flagpost_settings.secrets import SecretListSource

log = structlog.get_logger(__name__)


class SecretLines:
    """The secrets of one setting; `refresh` is to be called now and then."""

    def __init__(self, source: SecretListSource) -> None:
        """Read them; a file that cannot be read is no error here."""
        self._source = source
        self.lines: tuple[str, ...] = ()
        """Each line, in its place; an empty text where it can be no secret."""
        self._problem: str | None = None
        self.refresh()

    @property
    def setting(self) -> str:
        """Its name, such as `gateway.write_keys_file`."""
        return self._source.key

    @property
    def secrets(self) -> list[str]:
        """Those that can be used."""
        return [line for line in self.lines if line]

    @property
    def wrong(self) -> int:
        """How many lines can be no secret; 1 where the whole file cannot be read, or is empty."""
        return self.lines.count("") if self.lines else 1

    def refresh(self) -> bool:
        """Take up what there is now; whether it is something else than before."""
        before, problem_before = self.lines, self._problem
        self.lines, self._problem = self._read()
        if self._problem is not None and self._problem != problem_before:
            log.error(
                "secrets cannot be used, and whoever has them is refused: mend what they are read from",
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
