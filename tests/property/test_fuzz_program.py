"""The short form of tests/chaos/fuzz_records.py: the real consumer, librdkafka's mock cluster, a few records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deadlines import stretched

PROGRAM = Path(__file__).parents[1] / "chaos" / "fuzz_records.py"
DEADLINE_SECONDS = 120


def test_every_record_is_accounted_for() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--records", "1500", "--seed", "5"],
        capture_output=True, text=True, timeout=stretched(DEADLINE_SECONDS), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "\n1,500 records, " in done.stdout
    assert done.stdout.endswith("Every record is accounted for.\n")
