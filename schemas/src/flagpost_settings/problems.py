"""What is wrong with the settings, one line a problem.

In: the key, where its value came from, what is wrong and what is accepted. Out: one error that names them all,
so that a person mends a file in one go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""A key's names from the section down; whole numbers are places in a list."""

Finding = tuple[KeyPath, str]
"""A key, and what is wrong with it or what it should be."""


def given_twice(key: str) -> str:
    """What is wrong with a second way to give `key`."""
    return f"{key} is given as well; give one of the two"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    key: str
    """Dotted: `kafka.session_timeout_seconds`; empty when it is about the file as a whole."""
    origin: str
    """The file's path, or the variable's name; empty when nobody gave a value."""
    text: str
    """What is wrong, and what to do; never a secret."""

    def __str__(self) -> str:
        """The line that a person reads."""
        where = f"{self.key} ({self.origin})" if self.key and self.origin else self.key or self.origin
        return f"{where}: {self.text}"


class SettingsError(Exception):
    """The settings cannot be used; the program stops with exit code 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Hold every problem that was found."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
