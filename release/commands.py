"""Programs that a release runs: the tools of this checkout, and what they say when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
UV: Final = ROOT / ".tools" / "uv" / "bin" / "uv"
TOOLS: Final = ROOT / ".tools" / "release" / "bin"
"""What the group `release` of the lock brings (`make release-tools`)."""

Argument = str | Path


class CommandError(RuntimeError):
    """A program failed; the message has what it said."""


class Ended(NamedTuple):
    """A program that ran to its end."""

    command: str
    code: int
    output: str
    errors: str


def attempt(
    command: Sequence[Argument], cwd: Path = ROOT, variables: Mapping[str, str] | None = None, given: str = ""
) -> Ended:
    """Run a program to its end, well or badly; `given` is its standard input.

    Raises:
        CommandError: it is not there.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(variables or {})},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not there") from error
    return Ended(" ".join(words), done.returncode, done.stdout, done.stderr)


def run(
    command: Sequence[Argument], cwd: Path = ROOT, variables: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """The same for a program that has to end well: returns its standard output.

    Raises:
        CommandError: it is not there, or failed.
    """
    ended = attempt(command, cwd, variables, given)
    if ended.code != 0:
        raise CommandError(f"{ended.command} ended with {ended.code}:\n{ended.output}{ended.errors}".strip())
    return ended.output
