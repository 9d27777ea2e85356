"""The build tools are pinned: the same version everywhere, each file with its hash."""

from __future__ import annotations

import re
import tomllib

from release.identity import MEMBERS
from releasing.releases import ROOT

LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, object]:
    (found,) = (each for each in LOCK["package"] if each["name"] == name)
    return dict(found)


def test_uv_is_one_version_and_has_hashes() -> None:
    lines = [
        line for line in (ROOT / "release" / "uv.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert re.fullmatch(r"uv==\d+\.\d+\.\d+ \\", lines[0])
    assert len(lines) > 10
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])


def test_the_build_backend_is_locked_and_editable_installs_use_the_same() -> None:
    wanted, seen = ["hatchling"], set()
    while wanted:
        package = locked(wanted.pop())
        seen.add(package["name"])
        wheels = package["wheels"]
        assert isinstance(wheels, list)
        assert all(each["hash"].startswith("sha256:") for each in wheels)
        needed = package.get("dependencies", [])
        assert isinstance(needed, list)
        wanted += [each["name"] for each in needed if each["name"] not in seen]
    assert {"hatchling", "pathspec", "pluggy", "packaging", "trove-classifiers"} <= seen
    constraints = WORKSPACE["tool"]["uv"]["build-constraint-dependencies"]
    assert constraints == [f"hatchling=={locked('hatchling')['version']}"]


def test_every_member_builds_with_that_backend() -> None:
    for member in MEMBERS:
        project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())
        assert project["build-system"] == {
            "requires": ["hatchling>=1.27,<2"],
            "build-backend": "hatchling.build",
        }
