"""Tests the HTTP adapter and our HTTP server with another aiohttp than the locked one (`make test-next-aiohttp`).

In: a requirement; `aiohttp` is the newest version, including pre-releases. Out: pytest's exit code; 0 if that version
is the locked one, with which all other tests run.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

UV = ".tools/uv/bin/uv"
ENVIRONMENT = Path(".tools/next-aiohttp")
PYTHON = str(ENVIRONMENT / "bin/python")
SERVER = "tests/unit/test_http_server.py"
"""The tests of our HTTP server, which is built on inner parts of aiohttp's connections."""


def resolved(requirement: str) -> str:
    """The version that a requirement resolves to."""
    compiled = subprocess.run(
        [
            UV,
            "pip",
            "compile",
            "--quiet",
            "--no-deps",
            "--no-header",
            "--no-annotate",
            "--prerelease",
            "allow",
            "-",
        ],
        input=requirement,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return compiled.stdout.strip().rpartition("==")[2]


def uv(*arguments: str) -> None:
    """Run uv, which prints its own errors."""
    subprocess.run([UV, *arguments], check=True)


def make_environment(aiohttp_version: str) -> None:
    """Make an environment with the locked versions of everything except aiohttp."""
    locked = str(ENVIRONMENT / "locked.txt")
    uv("venv", "--quiet", "--clear", "--python", sys.executable, "--no-python-downloads", str(ENVIRONMENT))
    uv(
        "export",
        "--quiet",
        "--locked",
        "--all-packages",
        "--all-extras",
        "--no-hashes",
        "--output-file",
        locked,
    )
    install = ("pip", "install", "--quiet", "--python", PYTHON)
    uv(*install, "--requirements", locked)
    uv(*install, "--prerelease", "allow", f"aiohttp=={aiohttp_version}")


def main(requirement: str, *pytest_arguments: str) -> int:
    """Print the version and run the tests with it; returns the exit code."""
    locked, wanted = version("aiohttp"), resolved(requirement)
    if wanted == locked:
        sys.stdout.write(f"{requirement} is {locked}, the release that is locked: there is no other to try\n")
        return 0
    sys.stdout.write(f"aiohttp {wanted}, instead of the locked {locked}\n")
    sys.stdout.flush()
    make_environment(wanted)
    command = [
        PYTHON,
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "tests/contract",
        SERVER,
        *pytest_arguments,
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
