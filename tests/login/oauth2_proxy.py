"""oauth2-proxy as a process, started with the command that docs/web.md shows.

In: the issuer, the page's address. Out: the address where it listens. It is built by Go, once, into `.cache`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

from deadlines import stretched
from real_kafka.processes import free_port

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = "v7.15.6"
BUILD_SECONDS: Final = 600.0
START_SECONDS: Final = 60.0


def built() -> Path:
    """The program's path; Go builds it the first time, which takes minutes."""
    directory = ROOT / ".cache" / f"oauth2-proxy-{VERSION}"
    program = directory / "oauth2-proxy"
    if not program.exists():
        subprocess.run(
            ["go", "install", f"github.com/oauth2-proxy/oauth2-proxy/v7@{VERSION}"],
            env={**os.environ, "GOBIN": str(directory)},
            check=True,
            timeout=stretched(BUILD_SECONDS),
        )
    return program


def documented(**instead: str) -> list[str]:
    """The options of docs/web.md, with other values for some of them (a dash is written as an underscore)."""
    page = (ROOT / "docs" / "web.md").read_text()
    found = re.search(r"^oauth2-proxy (.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    options = dict(
        option.removeprefix("--").split("=", 1)
        for option in shlex.split(found[1].replace("\\\n", " "), comments=True)
    )
    given = {name.replace("_", "-"): value for name, value in instead.items()}
    assert given.keys() <= options.keys() | {"upstream-timeout"}
    return [f"--{name}={value}" for name, value in {**options, **given}.items()]


@asynccontextmanager
async def running(options: list[str], address: str) -> AsyncIterator[None]:
    """Run the program during the block, and wait first until it answers; the issuer runs on this loop."""
    process = await asyncio.create_subprocess_exec(
        str(built()), *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        deadline = monotonic() + START_SECONDS
        while not await asyncio.to_thread(_answers, f"http://{address}/ping"):
            assert process.returncode is None
            assert monotonic() < deadline
            await asyncio.sleep(0.1)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        said, _ = await process.communicate()
        sys.stdout.write(said.decode())


def free_address() -> str:
    """A free address where the proxy can listen."""
    return f"127.0.0.1:{free_port()}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=stretched(5)) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False
