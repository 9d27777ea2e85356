"""Version, home and licence are set once: a place that repeats them and differs is named, and can be rewritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from release.identity import CHART, LICENCE, MEMBERS, Identity, differences, identity_of, repetitions
from release.publishing import objections
from release.source import Source
from releasing.releases import ROOT

PLACES = (*MEMBERS, CHART.as_posix())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files of this checkout that contain version, home or licence."""
    for place in (".", *PLACES):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in ("pyproject.toml", "Chart.yaml", "CHANGELOG.md", *LICENCE):
            if (ROOT / place / name).exists():
                shutil.copyfile(ROOT / place / name, tmp_path / place / name)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def source(checkout: Path, *tags: str, changes: tuple[str, ...] = ()) -> Source:
    return Source(checkout, commit="0" * 40, epoch=1_800_000_000, tags=frozenset(tags), changes=changes)


def test_all_places_of_this_checkout_agree() -> None:
    assert differences(ROOT) == []


def test_a_new_version_and_home_are_written_everywhere(checkout: Path) -> None:
    was = identity_of(checkout)
    change(checkout / "pyproject.toml", f'version = "{was.version}"', 'version = "12.3.4"')
    change(checkout / "pyproject.toml", was.home, "https://git.example.com/flagpost")
    assert len(differences(checkout)) == 3 + 3 + 2 + 4
    for each in repetitions(checkout):
        each.write()
    assert differences(checkout) == []
    for place in PLACES:
        for path in (checkout / place).glob("*.[ty]*ml"):
            assert was.version not in path.read_text().replace("kubeVersion", "")
            assert was.home not in path.read_text()
    assert '"flagpost-schemas[settings]==12.3.4"' in (checkout / "consumer" / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("place", "old", "new", "told"),
    [
        (
            "consumer/pyproject.toml",
            "flagpost-publisher[optimizely]==",
            "flagpost-publisher[optimizely]>=",
            ">=",
        ),
        ("publisher/pyproject.toml", '"flagpost-schemas==', '"flagpost-schemas~=', "~="),
        ("helm/flagpost/Chart.yaml", "appVersion: ", "otherVersion: ", "says nothing"),
        ("helm/flagpost/LICENSE", "Apache", "Another", "helm/flagpost/LICENSE is not the same as LICENSE"),
        ("schemas/NOTICE", "Flagpost", "Other", "schemas/NOTICE is not the same as NOTICE"),
    ],
)
def test_a_place_that_differs_is_named(checkout: Path, place: str, old: str, new: str, told: str) -> None:
    change(checkout / place, old, new)
    (difference,) = differences(checkout)
    assert difference.startswith(place)
    assert told in difference


def test_a_placeholder_for_the_home_is_recognized() -> None:
    assert not Identity("1.0.0", "https://flagpost.invalid").has_home
    assert not Identity("1.0.0", "https://flagpost.invalid/some/path").has_home
    assert not Identity("1.0.0", "").has_home
    assert Identity("1.0.0", "https://git.example.com/invalid").has_home


def test_all_objections_to_publishing_are_reported_at_once(checkout: Path) -> None:
    found = objections(
        source(checkout, "v0.0.9", changes=("README.md",)),
        Identity("0.1.0", "https://flagpost.invalid"),
        {"image": "docker is not there"},
    )
    assert [each.split(":")[0] for each in found] == [
        "the release lacks its image",
        "the project's home is a placeholder, https",
        "the commit has no tag v0.1.0",
        "CHANGELOG.md has no heading `## 0.1.0, YYYY-MM-DD`",
        "the checkout has changes that are not committed",
    ]


def test_a_whole_release_may_be_published(checkout: Path) -> None:
    change(checkout / "CHANGELOG.md", "## Unreleased", "## 0.1.0, 2026-12-01")
    identity = Identity("0.1.0", "https://git.example.com/flagpost")
    assert objections(source(checkout, "v0.1.0"), identity, {}) == []
