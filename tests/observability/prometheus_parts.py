"""Prometheus and promtool: from the path, or unpacked once from Debian's package into .cache/.

In: nothing. Out: where the programs are, or a sentence about what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from real_kafka.parts import CACHE, fetch_once

FETCH_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Programs:
    """The two programs."""

    prometheus: Path
    promtool: Path


@cache
def missing() -> str | None:
    """What this machine lacks for Prometheus; None: nothing."""
    on_path = shutil.which("prometheus") and shutil.which("promtool")
    if on_path or _unpacked().is_dir() or shutil.which("apt-get"):
        return None
    return "no prometheus and promtool on the path, and no apt-get to fetch them with"


@cache
def programs() -> Programs:
    """Prometheus and promtool, fetched if need be."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Programs(Path(found[0]), Path(found[1]))
    folder = fetch_once(_unpacked(), _fetch) / "usr" / "bin"
    return Programs(folder / "prometheus", folder / "promtool")


def _unpacked() -> Path:
    return CACHE / "prometheus"


def _fetch(into: Path) -> None:
    """Unpack the package without installing it: an installation would start a service."""
    _run(["apt-get", "download", "-q", "prometheus"], into)
    (package,) = into.glob("prometheus_*.deb")
    _run(["dpkg", "-x", str(package), str(into)], into)
    package.unlink()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed (apt-get update first?):\n{done.stderr[-2000:]}")
