"""The image, where a Docker engine can be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from release.commands import CommandError, run
from release.identity import Identity
from release.source import Source


class NoEngineError(RuntimeError):
    """No Docker engine answers; the message says what was tried and what it said."""


def build_image(source: Source, identity: Identity, target: Path, options: Sequence[str]) -> None:
    """Build the Dockerfile, and save the image in an empty folder.

    `options` are `docker build`'s, such as --build-arg=PYTHON_IMAGE=….

    Raises:
        NoEngineError: there is no engine.
        CommandError: the build failed.
    """
    try:
        run(["docker", "version", "--format", "{{.Server.Version}}"])
    except CommandError as error:
        raise NoEngineError(str(error).splitlines()[-1]) from error
    name = f"flagpost:{identity.version}"
    labels = {"VERSION": identity.version, "REVISION": source.commit, "SOURCE": identity.home}
    told = [f"--build-arg={key}={value}" for key, value in labels.items()]
    run(
        ["docker", "build", f"--tag={name}", *told, *options, source.place],
        variables={"DOCKER_BUILDKIT": "1"},
    )
    run(["docker", "save", f"--output={target / f'flagpost-{identity.version}.tar'}", name])
