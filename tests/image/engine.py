"""The tests' own Docker engine, which shares nothing with another engine on this machine and ends with the tests.

In: the network of its containers. Out: `Engine`, which runs docker's commands. Debian's package docker.io has all
that it needs. No image is pulled: `image.local_images` builds them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import cache
from pathlib import Path

import pytest

from real_kafka.parts import CACHE
from real_kafka.processes import end

IMAGES = CACHE / "docker"
"""The engine's images and layers, which the next run uses again."""
START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 1200.0


class Network(Enum):
    """The network of the containers."""

    HOST = "host"
    """This machine's network, with `--network host`: builds reach package registries, containers loopback."""
    APART = "apart"
    """A network namespace of the engine's own, with bridges and published ports that nobody else sees."""

    @property
    def command(self) -> Sequence[str]:
        """The command that starts the daemon."""
        if self is Network.HOST:
            return ("dockerd", "--bridge=none", "--iptables=false")
        return ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", "dockerd")


def missing() -> str | None:
    """What this machine lacks for an engine of the tests' own; None if nothing."""
    needed = {"dockerd": "docker.io", "debootstrap": "debootstrap", "ip": "iproute2", "iptables": "iptables"}
    if os.geteuid() != 0:
        return "a Docker engine of the tests' own needs root"
    lacking = [package for program, package in needed.items() if shutil.which(program) is None]
    if lacking:
        return f"no Docker engine: apt-get install --no-install-recommends {' '.join(lacking)}"
    return None if _client() else "no docker client that builds with BuildKit: apt-get install docker.io"


@cache
def _client() -> str | None:
    """The first client on the path that can build with BuildKit; a newer one needs a plugin for that."""
    for directory in os.get_exec_path():
        candidate = shutil.which("docker", path=directory)
        if candidate and "--secret" in _said([candidate, "build", "--help"]):
            return candidate
    return None


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    return done.stdout


def _environment(**more: str) -> dict[str, str]:
    """The environment of this process, without variables that name another engine."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
    return {**ours, "DOCKER_BUILDKIT": "1", **more}


class Engine:
    """A running engine."""

    def __init__(self, socket: Path, process_id: int) -> None:
        """`process_id`: dockerd's; the published ports are in its network."""
        client = Path(_client() or "docker")
        self._environment = _environment(
            DOCKER_HOST=f"unix://{socket}", PATH=f"{client.parent}{os.pathsep}{os.environ['PATH']}"
        )
        self._process_id = process_id

    def docker(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run `docker …`; returns its standard output.

        Raises:
            RuntimeError: it failed; the text contains its output.
        """
        client = _client()
        assert client is not None
        return self.run([client, *arguments], seconds=seconds)

    def run(self, command: Sequence[str], seconds: float = COMMAND_SECONDS) -> str:
        """Run any program against this engine, as `docker` does."""
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}"[-4000:]
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
        return done.stdout

    def logs(self, container: str) -> str:
        """What a container's program has written to its standard output and standard error."""
        client = _client()
        assert client is not None
        return subprocess.run(
            [client, "logs", container],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=True,
        ).stdout

    def beside(self, *command: str) -> str:
        """Run a program in the network with the containers' published ports."""
        return self.run(["nsenter", f"--net=/proc/{self._process_id}/ns/net", *command], seconds=60)

    def answers(self) -> bool:
        """Whether the daemon accepts commands."""
        try:
            self.docker("version", seconds=START_SECONDS)
        except RuntimeError:
            return False
        return True

    def has(self, image: str) -> bool:
        """Whether there is an image with that name."""
        return bool(self.docker("image", "ls", "--quiet", image).strip())


@contextmanager
def engine(network: Network) -> Iterator[Engine]:
    """Start an engine; at the end it is stopped, with the containers that still run."""
    with ExitStack() as stack:
        IMAGES.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(IMAGES.with_suffix(".lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The path of a socket must be short.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flagpost-docker-")))
        log = stack.enter_context((place / "dockerd.log").open("w+"))
        process = subprocess.Popen(
            [
                *network.command,
                f"--data-root={IMAGES}",
                f"--exec-root={place}/exec",
                f"--pidfile={place}/pid",
                f"--host=unix://{place}/docker.sock",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
        stack.callback(_unmount_below, place)
        stack.callback(end, process, STOP_SECONDS)
        started = Engine(place / "docker.sock", process.pid)
        _await_start(process, started, place / "dockerd.log")
        yield started


def _await_start(process: subprocess.Popen[bytes], started: Engine, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not started.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"dockerd does not start within {START_SECONDS:g} s:\n{log.read_text()[-4000:]}"
            )
        time.sleep(0.1)


def _unmount_below(place: Path) -> None:
    """Unmount what the daemon leaves mounted below `place`: its network namespace."""
    mounted = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    for target in mounted:
        if target.startswith(f"{place}/"):
            subprocess.run(["umount", target], check=True)


NEEDS_ENGINE = pytest.mark.skipif(missing() is not None, reason=str(missing()))
"""For tests that start an engine: skips them, and says what is missing, where no engine can run."""
