"""The programs of examples/, built once into .cache/ and run as a service would run them.

In: users, and settings as environment variables. Out: what the program printed, and how it ended. A test is skipped
if a program's tools are not installed (a missing JDK or Maven fails it if CI is set).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deadlines import stretched
from go_building import UNOPTIMISED
from real_kafka import parts
from real_kafka.processes import JAVA
from running import environment

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
BUILD_SECONDS = 600
RUN_SECONDS = 90.0
GENERATED = shutil.ignore_patterns("node_modules", "target", "__pycache__")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of a user."""

    visitor_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps({"visitor_id": self.visitor_id, "attributes": self.attributes}) + "\n"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    code: int
    said: list[str]
    errors: str


@dataclass(frozen=True, slots=True)
class Example:
    """A program that decides for users on its stdin, and publishes."""

    command: tuple[str, ...]
    directory: Path

    async def run(self, visits: Iterable[Visit], settings: Mapping[str, object], **more: str) -> Ran:
        """Run it to its end; `settings` by dotted key, `more`: variables that are not settings."""
        users = "".join(visit.line() for visit in visits)
        code, said, errors = await _run(
            *self.command, cwd=self.directory, env={**environment(settings), **more}, given=users
        )
        return Ran(code, said.splitlines(), errors)


async def _run(*command: str, cwd: Path, env: Mapping[str, str], given: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        said, errors = await asyncio.wait_for(process.communicate(given.encode()), stretched(RUN_SECONDS))
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, said.decode(), errors.decode()


def python_example() -> Example:
    """The Python example, which runs in the repository."""
    return Example((sys.executable, "publish.py"), EXAMPLES / "python")


def node_example() -> Example:
    _need("node", "npm")
    directory = _built("node", "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
    return Example(("node", "main.js"), directory)


def go_example() -> Example:
    _need("go")
    return Example(("./shop",), _built("go", "go", "build", UNOPTIMISED, "-o", "shop", "."))


def java_example() -> Example:
    return Example((*JAVA, "-jar", "target/shop.jar"), _built_by_maven("java"))


def connect_plugin() -> Path:
    """What Maven builds of examples/connect: `plugins`, and the jars of a `worker` that runs them."""
    return _built_by_maven("connect") / "target"


def _built_by_maven(name: str) -> Path:
    if missing := parts.missing() or _missing("javac"):
        unfit = pytest.fail if "CI" in os.environ else pytest.skip
        unfit(f"examples/{name} needs a JDK {parts.NEEDED_JAVA} and Maven: {missing}")
    return _built(name, "mvn", "-q", "-B", "package")


def browser_example() -> Path:
    """The folder of the page, with its libraries."""
    _need("node", "npm")
    return _built("browser", "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")


EXAMPLE_OF = {"python": python_example, "node": node_example, "java": java_example, "go": go_example}
"""A call may build the example, which takes up to a minute: call it in a thread."""


class Shell:
    """The scripts of examples/curl, with the address of the gateway."""

    def __init__(self, gateway_url: str, write_key: str, **more: str) -> None:
        """Skips the test if their tools are not installed; `more`: further variables."""
        _need("sh", "curl", "jq", "od")
        self._variables = {"GATEWAY_URL": gateway_url, "FLAGPOST_WRITE_KEY": write_key, **more}

    async def ended(self, script: str, *arguments: str) -> tuple[int, str, str]:
        """Run a script; returns its code, output and errors."""
        return await _run(
            f"./{script}", *arguments, cwd=EXAMPLES / "curl", env={**os.environ, **self._variables}
        )

    async def run(self, script: str, *arguments: str) -> None:
        """Run a script; fails if it fails."""
        code, said, errors = await self.ended(script, *arguments)
        assert code == 0, said + errors


def _missing(*programs: str) -> str | None:
    absent = [program for program in programs if shutil.which(program) is None]
    return f"no {', no '.join(absent)}" if absent else None


def _need(*programs: str) -> None:
    if missing := _missing(*programs):
        pytest.skip(f"the example cannot run here: {missing}")


def _built(language: str, *command: str) -> Path:
    """A copy of the example, with the schemas and a datafile beside it as in the repository; `command` ran in it."""
    source = EXAMPLES / language
    place = parts.fetch_once(
        parts.CACHE / f"example-{language}-{_digest(source)}", lambda into: _build(source, into, command)
    )
    return place / "examples" / language


def _build(source: Path, into: Path, command: tuple[str, ...]) -> None:
    directory = into / "examples" / source.name
    shutil.copytree(source, directory, ignore=GENERATED)
    (into / "schemas").symlink_to(Path("../../schemas"))
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=stretched(BUILD_SECONDS), check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} failed in examples/{source.name}:\n{done.stdout}{done.stderr}"
        )


def _digest(source: Path) -> str:
    """A digest of everything that the build uses."""
    digest = hashlib.sha256()
    ignored = {"node_modules", "target"}
    for file in sorted([*source.rglob("*"), *(ROOT / "schemas" / "avro").iterdir()]):
        if file.is_file() and not ignored & set(file.parts):
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
