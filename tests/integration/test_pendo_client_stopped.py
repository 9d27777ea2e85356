"""A process that is stopped (SIGSTOP) while Pendo answers, for longer than its requests may take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deadlines import stretched
from pendo_client import GENEROUS_SECONDS, server_in_thread

pytestmark = pytest.mark.thorough

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REQUESTS = 64
TIMEOUT_SECONDS = 5.0
"""Much longer than it takes to stop the process after its requests have arrived."""


def test_answers_that_came_while_the_process_was_stopped_are_read_before_anything_times_out() -> None:
    """Before the fix, every request timed out although its answer was in the socket buffer, and was sent again."""
    program = Path(__file__).parents[1] / "pendo_client_process.py"
    with server_in_thread(REQUESTS, OK) as server:
        arguments = [server.url, str(REQUESTS), str(TIMEOUT_SECONDS)]
        process = subprocess.Popen([sys.executable, str(program), *arguments], stdout=subprocess.PIPE)
        try:
            assert server.received.wait(stretched(GENEROUS_SECONDS))
            os.kill(process.pid, signal.SIGSTOP)
            server.release()
            assert server.answered.wait(stretched(GENEROUS_SECONDS))
            time.sleep(TIMEOUT_SECONDS + 0.5)
            os.kill(process.pid, signal.SIGCONT)
            told, _ = process.communicate(timeout=stretched(GENEROUS_SECONDS))
        finally:
            process.kill()
            process.wait(stretched(GENEROUS_SECONDS))
    assert json.loads(told) == {"200": REQUESTS}
    assert server.count == REQUESTS
