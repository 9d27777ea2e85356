"""Runs Flagpost's containers with the restrictions of a careful cluster.

In: an engine, an image, settings by dotted key. Out: the output of a command, or a container that can be stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from image.engine import Engine
from running import environment

HARDENED = (
    "--network=host",
    "--read-only",
    "--cap-drop=ALL",
    "--user=65532",
    "--security-opt=no-new-privileges",
)
STOP_SECONDS = 60


def _variables(settings: Mapping[str, object]) -> list[str]:
    given = environment(settings)
    return [f"--env={name}={value}" for name, value in given.items() if name.startswith("FLAGPOST_")]


def run_once(engine: Engine, image: str, settings: Mapping[str, object], *command: str) -> str:
    """Run a command to its end; returns its standard output, and raises RuntimeError if it fails."""
    return engine.docker("run", "--rm", *HARDENED, *_variables(settings), image, *command)


class Container:
    """A service, from its start to its removal: a context manager."""

    def __init__(
        self, engine: Engine, image: str, settings: Mapping[str, object], *options: str, command: str = ""
    ) -> None:
        """`options` are `docker run`'s; without a command the image's own is run."""
        self._engine = engine
        arguments = [*HARDENED, *_variables(settings), *options, image, *command.split()]
        self._id = engine.docker("run", "--detach", *arguments).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.docker("rm", "--force", self._id)

    def stop(self) -> int:
        """`docker stop`: SIGTERM, and SIGKILL if it takes too long. Returns the exit code."""
        self._engine.docker("stop", f"--time={STOP_SECONDS}", self._id)
        return int(self._engine.docker("inspect", "--format={{.State.ExitCode}}", self._id))

    def logs(self) -> str:
        """What it wrote to its standard output and standard error."""
        return self._engine.logs(self._id)
