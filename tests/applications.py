"""Applications that use a publisher, as processes of their own.

In: a script. Out: how it ended, and what it printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from deadlines import stretched

TESTS = Path(__file__).parent
DEADLINE_SECONDS = 60


def run(script: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `script`, a text or a file, as an application would run; it can import the tests' modules."""
    program = [str(script)] if isinstance(script, Path) else ["-c", script]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=stretched(DEADLINE_SECONDS),
        check=False,
    )


def last_line(finished: subprocess.CompletedProcess[str]) -> Any:
    """The last line that the application printed, parsed as JSON; fails if its exit code is not 0."""
    assert (finished.returncode, finished.stderr) == (0, "")
    return json.loads(finished.stdout.splitlines()[-1])
