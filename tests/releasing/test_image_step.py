"""The image of a release where there is no Docker engine: NoEngineError says why there is no image."""

from __future__ import annotations

from pathlib import Path

import pytest

from release.identity import Identity
from release.image import NoEngineError, build_image
from release.source import Source

pytestmark = pytest.mark.thorough

SOURCE = Source(Path("nowhere"), commit="0" * 40, epoch=0, tags=frozenset(), changes=())
IDENTITY = Identity("1.0.0", "https://flagpost.invalid")


def test_a_missing_docker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEngineError, match="docker is not there"):
        build_image(SOURCE, IDENTITY, tmp_path, [])


def test_a_docker_whose_engine_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NoEngineError, match="Cannot connect to the Docker daemon"):
        build_image(SOURCE, IDENTITY, tmp_path, [])
