"""A command that waits for input says so at a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess

from deadlines import stretched
from running import FLAGPOST

EVENT = b'{"type":"track","visitor_id":"v","event":"Seen"}\n'
GIVE_UP_SECONDS = 120


def test_preview_says_that_it_waits_for_an_event_at_a_terminal() -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [FLAGPOST, "preview"], stdin=follower, stderr=follower, stdout=subprocess.PIPE
    ) as process:
        os.close(follower)
        said = b""
        while b"waiting for an event in JSON on stdin; end it with Ctrl-D" not in said:
            said += os.read(leader, 4096)
        os.write(leader, EVENT + b"\x04")
        out, _ = process.communicate(timeout=stretched(GIVE_UP_SECONDS))
        assert process.returncode == 0
    os.close(leader)
    assert b"/data/track" in out


def test_preview_says_nothing_to_a_pipe() -> None:
    done = subprocess.run(
        [FLAGPOST, "preview"],
        input=EVENT,
        capture_output=True,
        check=True,
        timeout=stretched(GIVE_UP_SECONDS),
    )
    assert done.stderr == b""
