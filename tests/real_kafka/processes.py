"""Runs Java programs that serve on 127.0.0.1 during tests.

In: a command line and a file for its log. Out: a process that is ready and can be stopped; if it ends too early, an
error with its last lines.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from deadlines import stretched

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOG_CHARACTERS = 4000

JAVA = ["java", "-Xmx512m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]


def free_port() -> int:
    """A port on which no program listens at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes], seconds: float, how: signal.Signals = signal.SIGTERM) -> None:
    """Send a process a signal, and wait until it has ended; after `seconds` it is killed."""
    process.send_signal(how)
    try:
        process.wait(stretched(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class JavaProcess:
    """One program: the constructor starts it, and waits until `is_ready` returns True."""

    def __init__(self, arguments: list[str], log: Path, is_ready: Callable[[], bool]) -> None:
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen([*JAVA, *arguments], stdout=out, stderr=subprocess.STDOUT)
        try:
            self._await(is_ready)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def send(self, what: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(what)

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait until it has ended."""
        end(self._process, STOP_SECONDS, how)

    def _await(self, is_ready: Callable[[], bool]) -> None:
        """Wait until `is_ready` returns True; the pause is for when `is_ready` does not block for a moment itself."""
        deadline = time.monotonic() + stretched(START_SECONDS)
        while not is_ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with code {self._process.returncode}:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it is not ready after {START_SECONDS:g} s:\n{self._last_lines()}")
            time.sleep(0.05)

    def _last_lines(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:]


def listens(port: int) -> bool:
    """Whether a program accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
