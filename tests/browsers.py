"""Chromium, and a server for its pages.

In: a folder of pages. Out: their address; a browser that opens one, until the block ends. A test is skipped if there
is no Chromium; with CI set it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deadlines import stretched

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing: an access log does not belong in the tests' output."""


@contextmanager
def pages(directory: Path) -> Iterator[int]:
    """Serve a folder on loopback, under each name of loopback; returns the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(url: str) -> Iterator[None]:
    """A browser that has opened a page, in a profile of its own."""
    found = [path for path in map(shutil.which, CHROMIUM) if path is not None]
    if not found:
        (pytest.fail if "CI" in os.environ else pytest.skip)("no Chromium")
    # Its child processes still write for a moment after it has ended.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        tempfile.TemporaryFile() as said,
    ):
        command = [
            found[0], "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={profile}", url,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            yield
        except BaseException:
            said.seek(0)
            console = b"".join(line for line in said if b"CONSOLE" in line)
            os.write(2, b"the browser said:\n" + console)
            raise
        finally:
            process.terminate()
            process.wait(stretched(30))
