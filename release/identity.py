"""Version, home and licence of the project: said once, repeated where a format demands it.

Version and home are in the workspace's pyproject.toml, the licence is in LICENSE and NOTICE beside it. As a program
(`make identity`) it carries them to every place that repeats them.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MEMBERS: Final = ("schemas", "publisher", "consumer")
CHART: Final = Path("helm") / "flagpost"
LICENCE: Final = ("LICENSE", "NOTICE")
"""Copied, not linked: an archive of a member would have a link to nowhere."""
PLACEHOLDER: Final = ".invalid"
"""The domain that belongs to nobody (RFC 2606): a home in it is still to be set."""

VERSION: Final = r'^version = "(.*)"$'
REQUIREMENT: Final = r'(?<!name = )"flagpost-[a-z]+(?:\[[a-z,]+\])?([^"\]]*)"'
URL: Final = r'^(?:Homepage|Documentation|Source|Issues|Changelog) = "(.*?)(?:/tree/.*|/blob/.*|/issues)?"$'


class Identity(NamedTuple):
    """What the project says of itself in one place."""

    version: str
    home: str

    @property
    def has_home(self) -> bool:
        """Whether the home is an address that can exist."""
        return not (urlsplit(self.home).hostname or PLACEHOLDER).endswith(PLACEHOLDER)


class Value(NamedTuple):
    """A value in a file: the only group of the pattern, in each of its matches."""

    path: Path
    pattern: str
    value: str

    def difference(self, checkout: Path) -> str | None:
        """The other values that stand there, or that there is none."""
        found = set(re.findall(self.pattern, self.path.read_text(), re.MULTILINE))
        if found == {self.value}:
            return None
        return f"{self.path.relative_to(checkout)} says {', '.join(sorted(found)) or 'nothing'}, not {self.value}"

    def write(self) -> None:
        """Put the value there."""
        text = re.sub(self.pattern, self._with_value, self.path.read_text(), flags=re.MULTILINE)
        self.path.write_text(text)

    def _with_value(self, match: re.Match[str]) -> str:
        start, end = (match.start(1) - match.start(), match.end(1) - match.start())
        return f"{match[0][:start]}{self.value}{match[0][end:]}"


class Copy(NamedTuple):
    """A file that is the same as another."""

    path: Path
    original: Path

    def difference(self, checkout: Path) -> str | None:
        """Whether it is another, or not there."""
        if self.path.is_file() and self.path.read_bytes() == self.original.read_bytes():
            return None
        return f"{self.path.relative_to(checkout)} is not the same as {self.original.relative_to(checkout)}"

    def write(self) -> None:
        """Copy it anew."""
        shutil.copyfile(self.original, self.path)


def identity_of(checkout: Path) -> Identity:
    """What a checkout says it is."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    return Identity(project["version"], project["urls"]["Homepage"])


def repetitions(checkout: Path) -> Iterator[Value | Copy]:
    """Every place of a checkout that repeats what is said once."""
    version, home = identity_of(checkout)
    for member in MEMBERS:
        project = checkout / member / "pyproject.toml"
        yield Value(project, VERSION, version)
        yield Value(project, URL, home)
    for member in MEMBERS[1:]:
        yield Value(checkout / member / "pyproject.toml", REQUIREMENT, f"=={version}")
    chart = checkout / CHART / "Chart.yaml"
    yield Value(chart, r"^version: (.*)$", version)
    yield Value(chart, r'^appVersion: "(.*)"$', version)
    yield Value(chart, r"^home: (.*)$", home)
    yield Value(chart, r"^sources:\n  - (.*)$", home)
    for place in (*MEMBERS, CHART):
        for name in LICENCE:
            yield Copy(checkout / place / name, checkout / name)


def differences(checkout: Path) -> list[str]:
    """The places that say something else, or nothing."""
    said = (each.difference(checkout) for each in repetitions(checkout))
    return [difference for difference in said if difference is not None]


if __name__ == "__main__":
    for repetition in repetitions(Path.cwd()):
        repetition.write()
