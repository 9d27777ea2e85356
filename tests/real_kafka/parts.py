"""The Java parts of the tests, fetched once through Maven into .cache/.

In: the pom beside this file. Out: directories of jars, and a text that says what this machine lacks for them.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from deadlines import stretched

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
CACHE = HERE.parent.parent / ".cache"
NEEDED_JAVA = 17
FETCH_SECONDS = 900


def _version(name: str) -> str:
    found = re.search(f"<{name}.version>(.+)</{name}.version>", POM.read_text())
    assert found, f"the pom has no {name}.version"
    return found.group(1)


KAFKA_VERSION = _version("kafka")
REGISTRY_VERSION = _version("apicurio")


@cache
def missing() -> str | None:
    """What this machine lacks for real Java parts; None if nothing."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            return f"no {program}"
    # Java 8 called itself 1.8.
    version = java_version().removeprefix("1.")
    is_enough = int(re.split(r"\D", version)[0]) >= NEEDED_JAVA
    return None if is_enough else f"Java {NEEDED_JAVA} is needed, this is {version}"


def kafka_jars() -> Path:
    """The directory of Apache Kafka's jars."""
    return fetch_once(CACHE / f"kafka-{KAFKA_VERSION}", _fetch_kafka)


def registry_jars() -> Path:
    """The directory of Apicurio's jars, its runner among them."""
    return fetch_once(CACHE / f"apicurio-{REGISTRY_VERSION}", _fetch_registry)


@cache
def java_version() -> str:
    """The version of the Java that tests run, such as 17.0.16."""
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "([^"]+)"', shown)
    assert found, f"java -version says nothing that we know: {shown}"
    return found.group(1)


def fetch_once(target: Path, fetch: Callable[[Path], None]) -> Path:
    """Fetch into `target` unless it exists: in one process only, and `target` appears only when it is complete."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = target.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fetch(unfinished)
            unfinished.rename(target)
    return target


def copy_jars(pom: Path, into: Path) -> None:
    """Copy the jars that a pom's program needs to run."""
    _maven(pom, "dependency:copy-dependencies", "-DincludeScope=runtime", into)


def _fetch_kafka(into: Path) -> None:
    copy_jars(POM, into)


def _fetch_registry(into: Path) -> None:
    _maven(POM, "dependency:copy@registry", "-Dmdep.useBaseVersion=true", into)
    (archive,) = into.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()


def _maven(pom: Path, goal: str, option: str, into: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(pom), goal, option, f"-DoutputDirectory={into}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=stretched(FETCH_SECONDS), check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
