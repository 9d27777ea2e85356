"""`make release` in a clean checkout: its artefacts are made from the commit, and install and run elsewhere."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import tarfile
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import click
import pytest

from flagpost_consumer.commands.cli import flagpost
from release import trial
from release.checksums import CHECKSUMS, digests
from release.identity import LICENCE, MEMBERS
from release.inventory import SBOM
from release.provenance import PROVENANCE
from release.trial import COMMANDS, try_out
from releasing.releases import STRAY, Released, called, surroundings

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]


def metadata_of(released: Released, member: str) -> Message:
    with zipfile.ZipFile(released.wheel(member)) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def environment(released: Released, place: Path) -> Path:
    python = place / "bin" / "python"
    released.uv("venv", "--quiet", "--python", released.checkout / ".venv" / "bin" / "python", place)
    assert python.exists()
    return python


def test_every_command_is_tried() -> None:
    assert sorted(COMMANDS) == sorted(flagpost.list_commands(click.Context(flagpost)))


def test_a_release_has_what_is_committed_and_no_other_files(released: Released) -> None:
    assert f"commit {released.git('rev-parse', 'HEAD')[:12]}" in released.said
    assert f"left out, for they are not committed: {STRAY}" in released.said
    with zipfile.ZipFile(released.wheel("schemas")) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert "json_form.py" in names
    assert STRAY.name not in names


@pytest.mark.parametrize("member", MEMBERS)
def test_a_package_has_the_licence_as_a_wheel_and_as_source(released: Released, member: str) -> None:
    wanted = {name: (released.checkout / name).read_bytes() for name in LICENCE}
    with zipfile.ZipFile(released.wheel(member)) as archive:
        in_wheel = {
            Path(name).name: archive.read(name) for name in archive.namelist() if "/licenses/" in name
        }
    with tarfile.open(released.sdist(member)) as source:
        files = {
            name: source.extractfile(f"flagpost_{member}-{released.identity.version}/{name}")
            for name in LICENCE
        }
        in_source = {name: file.read() for name, file in files.items() if file is not None}
    assert in_wheel == in_source == wanted


@pytest.mark.parametrize("member", MEMBERS)
def test_a_package_says_what_it_is_and_needs_exactly_its_own_version(released: Released, member: str) -> None:
    metadata = metadata_of(released, member)
    version, home = released.identity
    assert metadata["Version"] == version
    assert metadata["Metadata-Version"] == "2.4"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == list(LICENCE)
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(home) for url in urls.values())
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    ours = [each for each in metadata.get_all("Requires-Dist", []) if each.startswith("flagpost-")]
    assert ours or member == "schemas"
    assert all(each.partition(";")[0].strip().endswith(f"=={version}") for each in ours)


def test_checksums_are_of_everything_and_sha256sum_agrees(released: Released) -> None:
    lines = [line.split("  ") for line in (released.folder / CHECKSUMS).read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    there = digests(released.folder)
    del there[CHECKSUMS]
    assert listed == there
    called(["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS], released.folder)


def test_the_inventory_has_every_package_with_its_licence(released: Released) -> None:
    inventory = read_json(released.folder / "sbom" / SBOM)
    assert (inventory["bomFormat"], inventory["specVersion"]) == ("CycloneDX", "1.6")
    root = inventory["metadata"]["component"]
    assert (root["name"], root["version"]) == ("flagpost", released.identity.version)
    required = [
        line for line in (released.python / "requirements.txt").read_text().splitlines() if "==" in line
    ]
    pinned = {line.split("[")[0].split("==")[0] for line in required if "win32'" not in line or "!=" in line}
    listed = {each["purl"].removeprefix("pkg:pypi/").split("@")[0]: each for each in inventory["components"]}
    assert set(listed) == pinned
    assert all(each["licenses"] for each in listed.values())
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in inventory["dependencies"]}
    assert {listed[f"flagpost-{member}"]["bom-ref"] for member in MEMBERS} <= needs[root["bom-ref"]]


LICENCES_OF_THE_TESTS = """
from release.commands import ROOT
from release.inventory import check_licences
from release.source import Source
check_licences(Source(ROOT, "", 0, frozenset(), ()), ROOT / ".venv")
"""


def test_a_package_under_another_licence_is_refused(released: Released) -> None:
    """The tests' own environment has uWSGI, which is under the GPL."""
    looked = subprocess.run(
        [released.checkout / ".venv/bin/python", "-c", LICENCES_OF_THE_TESTS],
        cwd=released.checkout,
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode != 0
    assert (
        "GNU General Public License v2 (GPLv2) not in allow-only licenses was found for package pyuwsgi"
        in looked.stderr
    )


def test_the_provenance_names_commit_tools_and_every_artefact(released: Released) -> None:
    statement = read_json(released.folder / PROVENANCE)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    assert subjects == {
        name: digest
        for name, digest in digests(released.folder).items()
        if name not in {PROVENANCE, CHECKSUMS}
    }
    build = statement["predicate"]["buildDefinition"]
    commit, *tools = build["resolvedDependencies"]
    assert commit["digest"] == {"gitCommit": released.git("rev-parse", "HEAD")}
    assert any(each["uri"].startswith("pkg:pypi/hatchling@") for each in tools)
    assert all(len(each["digest"]["sha256"]) == 64 for each in tools)


def test_the_image_is_there_or_the_reason_why_not_is_reported(released: Released) -> None:
    build = read_json(released.folder / PROVENANCE)["predicate"]["buildDefinition"]
    left_out = build["internalParameters"]["leftOut"]
    image = released.folder / "image" / f"flagpost-{released.identity.version}.tar"
    assert image.exists() != ("image" in left_out)
    assert all(f"NO IMAGE: {why}" in released.said for why in left_out.values())


RELEASE_AGAIN = """
import sys
import release.__main__ as made
made.try_out = made.check_licences = lambda *_: ""
sys.exit(made.main())
"""
"""Without the checks that write nothing into the release and that the first one has passed."""


def test_the_same_commit_gives_the_same_bytes(released: Released, tmp_path: Path) -> None:
    to = str(tmp_path / "again")
    again = released.program(
        "-c", RELEASE_AGAIN, "--to", to, umask=0o077, TZ="Pacific/Auckland", LC_ALL="C.UTF-8"
    )
    assert again.returncode == 0, again.stderr
    first, second = digests(released.folder), digests(tmp_path / "again")
    for varying in (PROVENANCE, CHECKSUMS, f"image/flagpost-{released.identity.version}.tar"):
        first.pop(varying, None)
        second.pop(varying, None)
    assert first == second
    assert len(first) > 10


def test_an_installed_release_delivers_decisions_to_pendo(released: Released, tmp_path: Path) -> None:
    python = environment(released, tmp_path / "installed")
    released.uv(
        *("pip", "install", "--quiet", "--python", python, "--find-links", released.python),
        *("--require-hashes", "--requirement", released.python / "requirements.txt"),
    )
    reconciled = called([python.with_name("flagpost"), "demo", "--seconds", "2", "--json"], tmp_path)
    counted = json.loads(reconciled[reconciled.index("{") :])
    assert counted["decided"] > 0
    assert counted["totals"]["delivered"] > 0
    assert counted["unexplained"] == 0


HELP_OF_COMMANDS = """
import sys
from click.testing import CliRunner
from flagpost_consumer.commands.cli import flagpost
for command in sys.argv[1:]:
    ended = CliRunner().invoke(flagpost, [command, "--help"], catch_exceptions=False)
    assert ended.exit_code == 0, (command, ended.output)
"""


def test_the_oldest_versions_that_are_allowed_run_too(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = called(
        [released.checkout / ".venv/bin/python", "-c", "from release.audit import *; print(oldest(ROOT))"],
        released.checkout,
    )
    oldest = tmp_path / "oldest.txt"
    oldest.write_text(listed)
    python = environment(released, tmp_path / "old")
    released.uv(
        *(
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--find-links",
            released.python,
            "--constraint",
            oldest,
        ),
        *("flagpost-consumer[analyst,demo]", "flagpost-publisher[gateway,metrics]"),
    )
    assert "aiohttp==3.14.5" in released.uv("pip", "freeze", "--python", python).split()
    # One process imports what all commands need; the release itself has tried each in a process of its own.
    called([python, "-c", HELP_OF_COMMANDS, *COMMANDS], tmp_path)
    monkeypatch.setattr(trial, "COMMANDS", [])
    try_out(tmp_path / "old", released.identity.version)


def test_a_checkout_can_be_installed_as_the_readme_says(released: Released, tmp_path: Path) -> None:
    lines = [
        line
        for line in (released.checkout / "README.md").read_text().splitlines()
        if "pip install ./" in line
    ]
    assert len(lines) == 4
    for number, line in enumerate(lines):
        packages = line.partition("#")[0].replace("'", "").split()[2:]
        python = environment(released, tmp_path / str(number))
        released.uv("pip", "install", "--quiet", "--python", python, *packages)
        shown = released.uv("pip", "list", "--python", python, "--format", "json")
        installed = {each["name"]: each["version"] for each in json.loads(shown.splitlines()[-1])}
        assert {installed[f"flagpost-{each[2:].split('[')[0]}"] for each in packages} == {
            released.identity.version
        }
        shutil.rmtree(tmp_path / str(number))
