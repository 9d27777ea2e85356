"""Java programs that serve on 127.0.0.1 while tests run.

In: a command line and a place for its log. Out: a process that is waited for, stopped, and whose last lines are in
the error when it ends too early.
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
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes], seconds: float, how: signal.Signals = signal.SIGTERM) -> None:
    """End a process, and wait until it is gone; after so many seconds it is killed."""
    process.send_signal(how)
    try:
        process.wait(stretched(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class JavaProcess:
    """One program: started when made, and ready once `is_ready` said so."""

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
        """End it, and wait until it is gone."""
        end(self._process, STOP_SECONDS, how)

    def _await(self, is_ready: Callable[[], bool]) -> None:
        """`is_ready` blocks for a moment itself where it can; the pause is for when it cannot."""
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
    """Whether somebody takes connections at the port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
