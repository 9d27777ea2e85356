"""What a program writes to a terminal.

In: a command and its environment. Out: its exit code, and everything that it wrote to a pseudo-terminal.
"""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def written_to_terminal(command: Sequence[str | Path], environ: Mapping[str, str]) -> tuple[int, str]:
    """Run a command until it ends, with stdout and stderr on a pseudo-terminal of its own."""
    terminal, for_the_command = pty.openpty()
    written = b""
    with subprocess.Popen(command, stdout=for_the_command, stderr=for_the_command, env=environ) as process:  # noqa: S603 - ours
        os.close(for_the_command)
        while part := _read(terminal):
            written += part
    os.close(terminal)
    return process.returncode, written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the last writer has closed it
        return b""
