"""Known advisories of the packages that Flagpost is made with, asked of a database by pip-audit.

As a program (`make audit`): everything that the lock has, and the oldest versions that the members' requirements
allow. Where no database can be reached, pip-audit itself ends well; here that is said, and fails with --complete.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from release.commands import ROOT, TOOLS, UV, Argument, attempt, run
from release.identity import MEMBERS


class Audited(NamedTuple):
    """What a database said of a list of packages."""

    asked: int
    advisories: tuple[str, ...]
    unanswered: tuple[str, ...]
    """The packages that nothing is known of, each with why."""

    def report(self, of_what: str) -> str:
        """In words, a line for each advisory."""
        answered = self.asked - len(self.unanswered)
        lines = [f"{of_what}: {len(self.advisories)} advisories known of {answered} of {self.asked} packages"]
        lines += [f"  {each}" for each in self.advisories]
        if self.unanswered:
            lines.append(f"  NOT AUDITED: {len(self.unanswered)} packages, such as {self.unanswered[0]}")
        return "\n".join(lines)


def audit(requirements: Path, options: Sequence[Argument] = ()) -> Audited:
    """Ask about pinned requirements; `options` are pip-audit's."""
    asked = ["--format=json", "--progress-spinner=off", "--no-deps", "--disable-pip"]
    ended = attempt([TOOLS / "pip-audit", *asked, *options, "--requirement", requirements])
    try:
        answers: list[dict[str, Any]] = json.loads(ended.output)["dependencies"]
    except ValueError:  # it failed, and said so in words
        why = (ended.errors.strip() or "pip-audit says nothing").splitlines()[-1]
        names = [line.partition("==")[0] for line in requirements.read_text().splitlines() if "==" in line]
        return Audited(len(names), (), tuple(f"{name}: {why}" for name in names))
    return Audited(
        len(answers),
        tuple(advisory for each in answers for advisory in _advisories(each)),
        tuple(f"{each['name']}: {each['skip_reason']}" for each in answers if "skip_reason" in each),
    )


def _advisories(answer: Mapping[str, Any]) -> Iterator[str]:
    for advisory in answer.get("vulns", ()):
        fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
        yield f"{answer['name']} {answer['version']}: {advisory['id']}, fixed in {fixed}"


def locked(checkout: Path) -> str:
    """Everything that the lock has, for programs, tests and releases."""
    wanted = "--all-packages --all-extras --all-groups --no-emit-workspace"
    form = "--no-hashes --no-annotate --no-header"
    return run([UV, "export", "--quiet", "--locked", *wanted.split(), *form.split()], checkout)


def oldest(checkout: Path) -> str:
    """The oldest versions that the members' own requirements allow, and the newest of what those bring along."""
    projects = [Path(member) / "pyproject.toml" for member in MEMBERS]
    wanted = "--resolution lowest-direct --all-extras --universal --python-version 3.11"
    form = "--no-annotate --no-header"
    compiled = run([UV, "pip", "compile", "--quiet", *wanted.split(), *form.split(), *projects], checkout)
    return "".join(line for line in compiled.splitlines(keepends=True) if "==" in line)


LISTS: Final[Mapping[str, Callable[[Path], str]]] = {
    "what the lock has": locked,
    "the oldest versions that are allowed": oldest,
}


def audit_all(checkout: Path, options: Sequence[str] = ()) -> dict[str, Audited]:
    """Audit each of the lists, by its name."""
    with tempfile.TemporaryDirectory(prefix="flagpost-audit-") as place:
        requirements = Path(place) / "requirements.txt"
        found = {}
        for name, listed in LISTS.items():
            requirements.write_text(listed(checkout))
            found[name] = audit(requirements, options)
        return found


def main() -> int:
    """0: nothing is known against any package that was looked up."""
    parser = argparse.ArgumentParser(prog="make audit", description="Look for known advisories.")
    parser.add_argument("--complete", action="store_true", help="fail where a package could not be looked up")
    parser.add_argument("--osv-url", help="ask this OSV database, not the public index of packages")
    given = parser.parse_args()
    options = [f"--osv-url={given.osv_url}", "--vulnerability-service=osv"] if given.osv_url else []
    audited = audit_all(ROOT, options)
    for name, each in audited.items():
        print(each.report(name))
    incomplete = given.complete and any(each.unanswered for each in audited.values())
    return int(incomplete or any(each.advisories for each in audited.values()))


if __name__ == "__main__":
    sys.exit(main())
