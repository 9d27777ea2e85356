"""Builds images where no image registry can be reached.

In: an engine that reaches package registries. Out: the names of images: Debian with Python, made by debootstrap, and
Flagpost's own, built on it from the Dockerfile.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from image.engine import Engine

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
BASE = f"flagpost-tests/python:{SUITE}"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
LEFT_OUT = ("--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*")
DEBOOTSTRAP_SECONDS = 900
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def base_image(engine: Engine) -> str:
    """Make an image of Debian with Python, once, which takes two or three minutes; returns its name."""
    if not engine.has(BASE):
        with tempfile.TemporaryDirectory(prefix="flagpost-base-") as place:
            _debootstrap(Path(place) / "root")
            archive = f"{place}/root.tar"
            subprocess.run(["tar", "-C", f"{place}/root", *LEFT_OUT, "-cf", archive, "."], check=True)
            engine.docker("import", archive, BASE)
    return BASE


def _debootstrap(root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(root), *_mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEBOOTSTRAP_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def _mirror() -> list[str]:
    """The mirror from which this machine gets its packages of SUITE; empty: debootstrap's default."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)", f"Codename: {SUITE}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.split()[:1]


def flagpost_image(engine: Engine, tag: str, *options: str) -> str:
    """Build the Dockerfile on the local base, and name the image `tag`; `options` are `docker build`'s."""
    return _build(engine, tag, ROOT, *build_options(engine), *options)


def build_options(engine: Engine) -> list[str]:
    """The options with which `docker build` builds the Dockerfile on the local base."""
    authorities = [f"--secret=id=ca-certificates,src={AUTHORITIES}"] if AUTHORITIES.exists() else []
    return ["--network=host", f"--build-arg=PYTHON_IMAGE={base_image(engine)}", *authorities]


def other_image(engine: Engine, tag: str, dockerfile: Path, context: Path) -> str:
    """Build another Dockerfile, whose ARG BASE is the local base."""
    return _build(engine, tag, context, f"--build-arg=BASE={base_image(engine)}", f"--file={dockerfile}")


def _build(engine: Engine, tag: str, context: Path, *options: str) -> str:
    engine.docker("build", "--network=host", f"--tag={tag}", *options, str(context))
    engine.docker("image", "prune", "--force")  # removes the image that had the name before
    return tag
