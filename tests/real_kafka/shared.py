"""One real broker, and one registry, for all processes of a test run.

In: the run's directory, which its processes share, and a kind. Out: the ports. The first process that needs one
starts it; it is stopped when the last process that asked for it has ended, in any way: each holds a lock on a file,
which the system releases, and the program's keeper (`python -m real_kafka.shared`) waits for all these locks.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Protocol

from real_kafka.broker import SteadyBroker
from real_kafka.registry import OwnRegistry

BROKER, REGISTRY = "broker", "registry"
TESTS = Path(__file__).parent.parent


class Shared(Protocol):
    """A program that a keeper can run."""

    def __init__(self, directory: Path) -> None:
        """Start it, and wait until it is ready."""

    def ports(self) -> list[int]:
        """The arguments with which another process makes the class for its clients."""

    def stop(self) -> None:
        """Stop it cleanly."""


KINDS: Final[Mapping[str, type[Shared]]] = {BROKER: SteadyBroker, REGISTRY: OwnRegistry}
_held: dict[Path, IO[str]] = {}
"""The locks of this process, for as long as it lives."""


def ports_of(kind: str, run: Path) -> list[int]:
    """The ports of the run's broker or registry, which is started if needed, and runs as long as it has users."""
    directory = run / f"shared-{kind}"
    directory.mkdir(exist_ok=True)
    if directory not in _held:
        _held[directory] = _lock(directory / "users", fcntl.LOCK_SH)
        atexit.register(_held[directory].close)
    with _lock(directory / "starting", fcntl.LOCK_EX):
        if not (directory / "ports.json").exists():
            _start(kind, directory)
    ports: list[int] = json.loads((directory / "ports.json").read_text())
    return ports


def _lock(path: Path, how: int) -> IO[str]:
    file = path.open("w")
    fcntl.flock(file, how)
    return file


def _start(kind: str, directory: Path) -> None:
    """Let a keeper start it; the keeper continues when this returns."""
    log = directory / "keeper.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "real_kafka.shared", kind, str(directory)]
        done = subprocess.run(
            command, cwd=TESTS, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"the shared {kind} did not start:\n{log.read_text()[-4000:]}")


def _keep(kind: str, directory: Path, started: int) -> None:
    """Start it, write its ports to a file, close `started`, and stop it once no process uses it any more."""
    os.setsid()  # Ctrl-C must only reach the tests, which still use it then
    kept = KINDS[kind](_empty(directory))
    ports, unfinished = directory / "ports.json", directory / "ports.unfinished"
    unfinished.write_text(json.dumps(kept.ports()))
    unfinished.rename(ports)
    os.close(started)
    with _lock(directory / "users", fcntl.LOCK_EX):
        ports.unlink()
        kept.stop()


def _empty(directory: Path) -> Path:
    """A new directory for each start."""
    empty = directory / f"started-{os.getpid()}"
    empty.mkdir()
    return empty


def main(kind: str, directory: Path) -> int:
    """Fork a keeper, and return once its program is ready; 1: it could not be started."""
    waiting, started = os.pipe()
    if os.fork() == 0:
        _keep(kind, directory, started)
        return 0
    os.close(started)
    os.read(waiting, 1)  # until the keeper closes its end of the pipe, or has ended
    return 0 if (directory / "ports.json").exists() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
