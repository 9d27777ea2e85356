"""The receiving end: a program that answers after a latency and records what came; in Go, or in Python without it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SINK = Path(__file__).parents[1] / "sink.py"
IN_PYTHON = [sys.executable, str(SINK)]
LOOK_SECONDS = 0.5


class Receiver:
    """One receiver that runs, and the lines that it prints."""

    def __init__(self, lines: IO[bytes], scheme: str) -> None:
        self._lines = lines
        host = "localhost" if scheme == "https" else "127.0.0.1"
        self.url = f"{scheme}://{host}:{int(lines.readline())}/data/track"
        self.recorded: dict[str, Any] = {}
        """What came; known once the receiver has ended."""

    def wait_for(self, line: str, look: Callable[[], None], seconds: float) -> None:
        """Wait until it prints a line; `look` is called now and then, and raises when there is no use in waiting.

        Raises:
            TimeoutError: it does not come in time.
        """
        deadline = time.monotonic() + seconds
        while not select.select([self._lines], [], [], LOOK_SECONDS)[0]:
            look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the receiver did not tell {line!r} within {seconds:g} s")
        told = self._lines.readline().decode().strip()
        if told != line:
            raise RuntimeError(f"the receiver told {told!r}, not {line!r}")

    def end(self) -> None:
        *_, last = self._lines.read().splitlines()
        self.recorded = json.loads(last)


@contextmanager
def receiver(
    command: Sequence[str], latency_ms: float, expect: int = 0, certificate: tuple[Path, Path] | None = None
) -> Iterator[Receiver]:
    """Run one; `certificate` and its key make it speak TLS."""
    options = [f"--latency-ms={latency_ms:g}", f"--expect={expect}"]
    if certificate is not None:
        options += [f"--certificate={certificate[0]}", f"--key={certificate[1]}"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *options], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - narrows the types
        running = Receiver(process.stdout, "http" if certificate is None else "https")
        try:
            yield running
        finally:
            process.stdin.close()
            running.end()
