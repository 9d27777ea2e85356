"""Finds Prometheus and promtool: on the path, or unpacked once from Debian's package into .cache/.

In: nothing. Out: the paths of the programs, or an error that says what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deadlines import stretched
from real_kafka.parts import CACHE, fetch_once

FETCH_SECONDS = 120


class NotToBeHadError(Exception):
    """This machine has no Prometheus, and cannot fetch it."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The two programs."""

    prometheus: Path
    promtool: Path


@cache
def programs() -> Programs:
    """Prometheus and promtool, fetched if needed. Raises NotToBeHadError."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Programs(Path(found[0]), Path(found[1]))
    folder = fetch_once(CACHE / "prometheus", _fetch) / "usr" / "bin"
    return Programs(folder / "prometheus", folder / "promtool")


def _fetch(into: Path) -> None:
    """Unpack the package without installing it: an installation would start a service."""
    if shutil.which("apt-get") is None:
        raise NotToBeHadError("no prometheus and promtool on the path, and no apt-get to fetch them with")
    _run(["apt-get", "download", "-q", "prometheus"], into)
    (package,) = into.glob("prometheus_*.deb")
    _run(["dpkg", "-x", str(package), str(into)], into)
    package.unlink()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=stretched(FETCH_SECONDS), check=False
    )
    if done.returncode != 0:
        raise NotToBeHadError(f"{' '.join(command)} failed; apt-get update first?\n{done.stderr[-2000:]}")
