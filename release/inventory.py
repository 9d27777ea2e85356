"""The list of everything that an installation has, in CycloneDX's form, and its licences held to those we take."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from release.commands import TOOLS, Argument, run
from release.source import Source

SBOM: Final = "flagpost.cdx.json"


def write_sbom(source: Source, environment: Path, target: Path) -> None:
    """List an environment, with versions, licences and what needs what; cyclonedx-py validates what it writes."""
    wanted = "--spec-version 1.6 --output-format JSON --output-reproducible --mc-type application"
    files: list[Argument] = ["--pyproject", source.place / "pyproject.toml", "--output-file", target / SBOM]
    python = environment / "bin" / "python"
    run([TOOLS / "cyclonedx-py", "environment", *wanted.split(), *files, python], variables=source.variables)


def check_licences(source: Source, environment: Path) -> str:
    """Hold an environment to the licences that pyproject.toml lists; returns how often each occurs.

    Raises:
        CommandError: a package has another licence; the message names it.
    """
    looked: list[Argument] = [TOOLS / "pip-licenses", "--python", environment / "bin" / "python"]
    run(looked, cwd=source.place)
    return run([*looked, "--summary"], cwd=source.place)
