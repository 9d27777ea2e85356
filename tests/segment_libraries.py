"""Segment's own server libraries, each in a process of its own, as an application would use them.

In: calls. Out: whether they arrived, as the library reports. Libraries for other languages than Python are fetched
and built once, into .cache/; a test is skipped if their tools are not installed, and fails with CI set.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deadlines import stretched
from go_building import UNOPTIMISED
from real_kafka import parts
from real_kafka.parts import CACHE, fetch_once

HERE = Path(__file__).parent
NODE = HERE / "node"
SEGMENT = HERE / "segment"
NEEDED_NODE = 20
FETCH_SECONDS = 300
SEND_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a library's method; `arguments` by Segment's names, with `timestamp` in ISO 8601."""

    kind: str
    arguments: Mapping[str, Any]

    def line(self) -> str:
        return json.dumps({"kind": self.kind, "arguments": self.arguments}) + "\n"


@dataclass(frozen=True, slots=True)
class Library:
    """A program that sends calls through one library."""

    command: tuple[str, ...]
    environment: Mapping[str, str]

    async def send(self, calls: Iterable[Call], host: str, write_key: str, *more: str) -> None:
        """Send the calls; fails if the library reports that something did not arrive."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            host,
            write_key,
            *more,
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            lines = "".join(call.line() for call in calls).encode()
            said, _ = await asyncio.wait_for(process.communicate(lines), stretched(SEND_SECONDS))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said.decode()


def python_library() -> Library:
    """PyPI segment-analytics-python, from the development environment."""
    return Library((sys.executable, str(HERE / "segment_send.py")), {})


def node_library() -> Library:
    """npm @segment/analytics-node, from tests/node; a test is skipped if there is no Node, and fails with CI set."""
    _need(f"Segment's Node library needs Node {NEEDED_NODE} and npm", _missing_for_node())
    return Library(("node", str(NODE / "send.cjs")), {"NODE_PATH": str(_node_modules())})


def go_library() -> Library:
    """Go's github.com/segmentio/analytics-go, from tests/segment/go."""
    _need("Segment's Go library", None if shutil.which("go") else "no go")
    return Library((str(_built("go", _build_go) / "send"),), {})


def java_library() -> Library:
    """Maven's com.segment.analytics.java, from tests/segment/java."""
    return Library(_java("Send"), {})


async def send_by_kotlin(address: str, write_key: str, user_id: str, events: int) -> None:
    """Send an identify, tracks, a screen and a group with com.segment.analytics.kotlin, from tests/segment/java."""
    command = await asyncio.to_thread(_java, "SendKotlin")
    await Library(command, {}).send((), address, write_key, user_id, str(events))


def _java(program: str) -> tuple[str, ...]:
    missing = parts.missing() or (None if shutil.which("javac") else "no javac")
    _need("Segment's libraries for Java and Kotlin", missing)
    built = _built("java", _build_java)
    return ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{built}/libs/*:{built}", program)


def _build_go(source: Path, into: Path) -> None:
    _run(["go", "build", UNOPTIMISED, "-o", str(into / "send"), "."], source)


def _build_java(source: Path, into: Path) -> None:
    parts.copy_jars(source / "pom.xml", into / "libs")
    _run(["javac", "-cp", f"{into}/libs/*", "-d", str(into), "Send.java", "SendKotlin.java"], source)


def _built(language: str, build: Callable[[Path, Path], None]) -> Path:
    source = SEGMENT / language
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()[:12]
    return fetch_once(CACHE / f"segment-{language}-{digest}", lambda into: build(source, into))


def _need(library: str, missing: str | None) -> None:
    if missing is not None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{library}: {missing}")


def _missing_for_node() -> str | None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"no {program}"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    major = int(version.removeprefix("v").partition(".")[0])
    return f"this is Node {major}" if major < NEEDED_NODE else None


def _node_modules() -> Path:
    lock = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:12]
    return fetch_once(CACHE / f"segment-node-{lock}", _fetch_node) / "node_modules"


def _fetch_node(into: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, into)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], into)


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=stretched(FETCH_SECONDS), check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
