"""The Dockerfile builds with the tools that `make` uses, and copies nothing that the image does not need."""

from __future__ import annotations

import re
import tomllib

from image.local_images import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_its_tools_are_those_of_the_makefile_with_hashes() -> None:
    made_with = "--require-hashes --requirement "
    assert f"{made_with}release/uv.txt" in (ROOT / "Makefile").read_text()
    assert "COPY release/uv.txt ./" in DOCKERFILE
    assert f"{made_with}uv.txt" in DOCKERFILE
    assert "uv sync --only-group build" in DOCKERFILE
    assert "uv build --no-build-isolation" in DOCKERFILE


def test_a_label_names_the_licence_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'org.opencontainers.image.licenses="{project["license"]}"' in DOCKERFILE


def test_the_context_is_what_the_dockerfile_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {source.split("/")[0] for sources in copied for source in sources.split()} == let_in
    assert "*" in ignored


def test_nothing_runs_in_the_stages_that_ship() -> None:
    shipped = DOCKERFILE[DOCKERFILE.index(" AS run\n") :]
    assert "COPY --from=build /opt/flagpost" in shipped
    assert not re.search(r"^(RUN|ADD) ", shipped, re.MULTILINE)
