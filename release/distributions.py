"""Wheels and sdists of the members, and one file of requirements that installs them with what they were tested with.

They are built by the hatchling of uv.lock, which was installed with its hashes; building fetches nothing. The same
commit gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from release.checksums import sha256
from release.commands import TOOLS, UV, run
from release.identity import MEMBERS
from release.source import Source

REQUIREMENTS: Final = "requirements.txt"
EXTRAS: Final = {"schemas": "settings", "publisher": "gateway,optimizely,metrics", "consumer": "demo"}
HEADING: Final = """\
# Flagpost {version}, and everything that it was tested with, each with its hashes:
#   pip install --find-links . --require-hashes --requirement requirements.txt
"""


def build_distributions(source: Source, version: str, target: Path) -> None:
    """Build into an empty folder: each sdist of the source, each wheel of its sdist."""
    wanted = "--quiet --all-packages --no-build-isolation"
    run(
        [UV, "build", *wanted.split(), "--python", TOOLS / "python", "--out-dir", target],
        source.place,
        source.variables,
    )
    (target / ".gitignore").unlink(missing_ok=True)  # uv's own, of a folder that it made
    (target / REQUIREMENTS).write_text(_requirements(source, version, target))


def wheel(target: Path, member: str, version: str) -> Path:
    """The wheel of a member."""
    return target / f"flagpost_{member}-{version}-py3-none-any.whl"


def sdist(target: Path, member: str, version: str) -> Path:
    """The source distribution of a member."""
    return target / f"flagpost_{member}-{version}.tar.gz"


def _requirements(source: Source, version: str, target: Path) -> str:
    wanted = (
        "--quiet --locked --all-packages --all-extras --no-dev --no-emit-workspace --no-annotate --no-header"
    )
    locked = run([UV, "export", *wanted.split()], source.place)
    ours = [_requirement(member, version, target) for member in MEMBERS]
    return HEADING.format(version=version) + "\n".join(ours) + "\n" + locked


def _requirement(member: str, version: str, target: Path) -> str:
    hashes = (sha256(each(target, member, version)) for each in (wheel, sdist))
    options = "".join(f" \\\n    --hash=sha256:{each}" for each in hashes)
    return f"flagpost-{member}[{EXTRAS[member]}]=={version}{options}"
