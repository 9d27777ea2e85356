"""The HTTP adapter and our HTTP server on another aiohttp than the locked one (`make test-next-aiohttp`).

In: a requirement; `aiohttp` is the newest that there is, also one before its release. Out: pytest's exit code;
0 where that is the locked one, which all other tests run on.
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
"""Of our HTTP server, which is built on the insides of aiohttp's connections."""


def resolved(requirement: str) -> str:
    """The version that a requirement comes to."""
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
    """Run uv; what it says of an error is enough to read."""
    subprocess.run([UV, *arguments], check=True)


def make_environment(aiohttp_version: str) -> None:
    """Everything as it is locked, but for aiohttp."""
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
    """Say which version it is, and try it."""
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
