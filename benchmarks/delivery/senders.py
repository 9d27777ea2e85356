"""Who delivers: Flagpost, the bare loop, and the peers, each built from its own files beside this one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from delivery.events import Skew
from real_kafka.parts import copy_jars, fetch_once
from running import FLAGPOST, environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".tools"
SCHEMA = str(files("flagpost_schemas") / "avro" / "TrackEvent.avsc")
NEEDED_PYTHON = (3, 12)


class MissingError(Exception):
    """A sender cannot be had on this machine; says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a sender is told."""

    url: str
    authority: str
    """The file of the CA that the receiver's certificate is of; empty: no TLS."""
    bootstrap_servers: str
    topic: str
    ledger_topic: str
    dead_letter_topic: str
    group: str
    connections: int
    skew: Skew
    events: int


@dataclass(frozen=True, slots=True)
class Sender:
    """One way to deliver."""

    name: str
    prepare: Callable[[], list[str]]
    """Builds what must be built; returns the command."""
    environment: Callable[[Task], Mapping[str, str]]
    reads_kafka: bool = True
    events_at_most: int | None = None
    """A slow one gets the beginning of the events only, so that a run ends in time."""


def told(task: Task) -> dict[str, str]:
    """The variables that every sender but Flagpost reads."""
    return {
        **os.environ,
        "DELIVER_URL": task.url,
        "DELIVER_CA": task.authority,
        "DELIVER_KAFKA": task.bootstrap_servers,
        "DELIVER_TOPIC": task.topic,
        "DELIVER_GROUP": task.group,
        "DELIVER_CONNECTIONS": str(task.connections),
        "DELIVER_SCHEMA": SCHEMA,
        "DELIVER_SKEW": task.skew.value,
        "DELIVER_EVENTS": str(task.events),
    }


def flagpost_settings(task: Task) -> dict[str, str]:
    """As it is shipped, but for what no peer has: a visitor's pace, and its share of the memory in a backlog."""
    settings: dict[str, object] = {
        "kafka.bootstrap_servers": task.bootstrap_servers,
        "kafka.topic": task.topic,
        "kafka.ledger_topic": task.ledger_topic,
        "kafka.dead_letter_topic": task.dead_letter_topic,
        "kafka.group_id": task.group,
        "pendo.track_url": task.url,
        "pendo.track_secret": "secret",
        "pendo.max_connections": task.connections,
        "delivery.visitor_interval_seconds": 0,
        "delivery.max_pending_per_visitor": 0,
        "decisions.visitor_metadata": False,
        "admin.host": "127.0.0.1",
        "admin.port": 0,
        "log.level": "error",
    }
    if task.authority:
        settings["pendo.ca_file"] = task.authority
    return environment(settings)


def build_go(name: str, *flags: str) -> list[str]:
    """Build a Go program of a folder here; `flags` for the compiler."""
    if shutil.which("go") is None:
        raise MissingError("no Go")
    program = TOOLS / "benchmarks" / name
    _run(["go", "build", *flags, "-o", str(program), "."], HERE / name)
    return [str(program)]


def build_parallel_consumer() -> list[str]:
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            raise MissingError(f"no {program}")
    folder = HERE / "parallel_consumer"
    pom = folder / "pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:8]
    try:
        jars = fetch_once(ROOT / ".cache" / f"parallel-consumer-{digest}", lambda into: copy_jars(pom, into))
    except RuntimeError as error:
        raise MissingError(_last_line(str(error))) from error
    classes = TOOLS / "benchmarks" / "parallel_consumer"
    _run(["javac", "-cp", f"{jars}/*", "-d", str(classes), "Deliver.java"], folder)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return ["java", quiet, "-cp", f"{jars}/*:{classes}", "Deliver"]


def build_pyrallel_consumer() -> list[str]:
    folder, place, uv = (
        HERE / "pyrallel_consumer",
        TOOLS / "pyrallel-consumer",
        str(TOOLS / "uv" / "bin" / "uv"),
    )
    python = place / "bin" / "python"
    if not python.exists():
        _run([uv, "venv", "--quiet", "--clear", "--python", _newer_python(), str(place)], folder)
    _run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", "requirements.txt"], folder)
    return [str(python), str(folder / "pyrallel.py")]


def _newer_python() -> str:
    """A Python that is new enough: this one, one on the path, or one of pyenv's."""
    named = [f"python3.{minor}" for minor in range(NEEDED_PYTHON[1], NEEDED_PYTHON[1] + 4)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, *named, *(str(path) for path in sorted(pyenv.glob("3.*/bin/python")))]
    question = f"import sys; sys.exit(sys.version_info < {NEEDED_PYTHON})"
    for candidate in candidates:
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-c", question], capture_output=True, check=False).returncode == 0:
            return path
    raise MissingError(f"no Python {'.'.join(map(str, NEEDED_PYTHON))} or newer")


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(f"{command[0]}: {_last_line(done.stderr + done.stdout)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it failed without a word"])[-1]


BARE = Sender("bare loop", lambda: [sys.executable, str(HERE / "bare.py")], told, reads_kafka=False)
FLAGPOST_SENDER = Sender("Flagpost", lambda: [str(FLAGPOST), "consume"], flagpost_settings)
PEERS = {
    "go": Sender("Go, key order", lambda: build_go("go_client"), told),
    "parallel-consumer": Sender("parallel-consumer", build_parallel_consumer, told),
    "pyrallel-consumer": Sender("Pyrallel-Consumer", build_pyrallel_consumer, told, events_at_most=6_000),
}
