"""What is wrong with the settings, one line for each problem.

In: the key, where its value came from, what is wrong and what is accepted. Out: one error that names all of them, so
that a person can fix a file in one go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""A key's names from the section down; whole numbers are indices in a list."""

Finding = tuple[KeyPath, str]
"""A key, and what is wrong with it or what is expected."""


def given_twice(key: str) -> str:
    """The problem of setting `key` in two ways."""
    return f"{key} is given as well; give one of the two"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    key: str
    """With dots: `kafka.session_timeout_seconds`; empty if it is about the file as a whole."""
    origin: str
    """The file's path, or the variable's name; empty if there was no value."""
    text: str
    """What is wrong, and what to do; never a secret."""

    def __str__(self) -> str:
        """The line that a person reads."""
        where = f"{self.key} ({self.origin})" if self.key and self.origin else self.key or self.origin
        return f"{where}: {self.text}"


class SettingsError(Exception):
    """The settings cannot be used; the program stops with exit code 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keeps every problem that was found."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
