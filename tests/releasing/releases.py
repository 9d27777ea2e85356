"""A release, made in a clean checkout of its own by `make release`, once for all tests that use it.

In: an empty folder. Out: the checkout, the folder of artefacts, and the output of `make`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deadlines import stretched
from release.distributions import sdist, wheel
from release.identity import Identity, identity_of

ROOT: Final = Path(__file__).parents[2]
RELEASE_SECONDS: Final = 600
STRAY: Final = Path("schemas") / "src" / "flagpost_schemas" / "stray.py"
"""A file in the checkout that is not committed."""
AUTHOR: Final = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
OURS: Final = ("ARGS", "MAKE", "MFLAGS", "PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "FLAGPOST_")
"""The beginnings of the names of variables that this run of the tests has, and a person's shell does not have."""


@dataclass(frozen=True, slots=True)
class Released:
    """A checkout in which `make release` ran."""

    checkout: Path

    @property
    def identity(self) -> Identity:
        return identity_of(self.checkout)

    @property
    def folder(self) -> Path:
        return self.checkout / "dist" / "release"

    @property
    def python(self) -> Path:
        return self.folder / "python"

    @property
    def said(self) -> str:
        return (self.checkout / "dist" / "said.txt").read_text()

    def wheel(self, member: str) -> Path:
        return wheel(self.python, member, self.identity.version)

    def sdist(self, member: str) -> Path:
        return sdist(self.python, member, self.identity.version)

    def git(self, *words: str) -> str:
        return called(["git", *words], self.checkout).strip()

    def program(self, *words: str, umask: int = -1, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the checkout's Python, as `make` would; it may fail."""
        return subprocess.run(
            [self.checkout / ".venv" / "bin" / "python", *words],
            cwd=self.checkout,
            env={**surroundings(), **variables},
            umask=umask,
            timeout=stretched(RELEASE_SECONDS),
            capture_output=True,
            text=True,
            check=False,
        )

    def uv(self, *words: str | Path) -> str:
        return called([self.checkout / ".tools" / "uv" / "bin" / "uv", *words], self.checkout)


def surroundings() -> Mapping[str, str]:
    """The variables of a person's shell."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def called(command: Sequence[str | Path], cwd: Path) -> str:
    """Run a program, which must succeed; returns its output and errors."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=surroundings(),
        timeout=stretched(RELEASE_SECONDS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def release_once(place: Path) -> Released:
    """Make the release, or wait until another worker has made it."""
    released = Released(place / "checkout")
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not released.checkout.exists():
            _check_out(released.checkout)
            (released.checkout / STRAY).write_text("raise RuntimeError\n")
            said = called(["make", "release", f"PYTHON={sys.executable}"], released.checkout)
            (released.checkout / "dist" / "said.txt").write_text(said)
    return released


def _check_out(checkout: Path) -> None:
    """Clone this repository, and commit what is changed here and not yet committed."""
    called(["git", "clone", "--quiet", ROOT, checkout], ROOT)
    changes = subprocess.run(
        ["git", "diff", "--binary", "HEAD"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    if changes:
        subprocess.run(["git", "apply", "--index"], cwd=checkout, input=changes, check=True)
        called(["git", *AUTHOR, "commit", "--quiet", "--message", "what is not yet committed"], checkout)
