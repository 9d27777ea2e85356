"""The Dockerfile builds with the tools that `make` uses, and takes in nothing that the image does not need."""

from __future__ import annotations

import re

from image.local_images import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_it_is_built_with_the_uv_of_the_makefile() -> None:
    made_with = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made_with
    assert f"ARG UV_VERSION={made_with[1]}\n" in DOCKERFILE


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
