"""findings.yaml has an answer to each of Checkov's findings in the sets of values, and each answer is still needed.

Checkov needs other versions of libraries than Flagpost, so it has an environment of its own (`make deploy-tools`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deadlines import stretched
from helm.missing_tools import do_without
from helm.rendering import NAMES, RELEASE, ROOT, rendered_set, value_sets

CHECKOV: Final = ROOT / ".tools" / "checkov" / "bin" / "checkov"
CHECKOV_SECONDS: Final = 240
OF_OTHER_NAMES: Final = ("helm-values-labels", "scaled-gateway")
"""Sets that are also checked with release names that look like other types, and with the longest name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that an object of a set of values does not pass."""

    check: str
    about: str
    name: str
    values: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a check's findings about some objects are accepted; `about` is a pattern of kind and name."""

    check: str
    about: str
    why: str

    def fits(self, finding: Finding) -> bool:
        """Whether this is the answer to the finding."""
        return finding.check == self.check and fnmatchcase(finding.about, self.about)


@pytest.mark.thorough
def test_every_finding_has_an_answer_and_every_answer_a_finding(tmp_path: Path) -> None:
    if not CHECKOV.exists():
        do_without("checkov")
    written: set[str] = set()
    for name in value_sets():
        for release in (RELEASE, *(NAMES if name in OF_OTHER_NAMES else ())):
            objects = rendered_set(name, release, release).objects
            texts = {yaml.dump(each, Dumper=yaml.CSafeDumper, explicit_start=True) for each in objects}
            (tmp_path / f"{name} as {release}.yaml").write_text("".join(sorted(texts - written)))
            written |= texts
    findings = list(_found(tmp_path))
    answers = _answers()
    assert [each for each in findings if not any(answer.fits(each) for answer in answers)] == []
    assert [answer for answer in answers if not any(answer.fits(each) for each in findings)] == []
    assert all(answer.why for answer in answers)


def _answers() -> list[Answer]:
    return [Answer(**each) for each in yaml.safe_load((Path(__file__).parent / "findings.yaml").read_text())]


def _found(directory: Path) -> Iterator[Finding]:
    command = [str(CHECKOV), "--framework", "kubernetes", "--skip-download", "--quiet", "--compact"]
    done = subprocess.run(
        [*command, "--output", "json", "--directory", str(directory)],
        capture_output=True,
        text=True,
        timeout=stretched(CHECKOV_SECONDS),
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    for each in report["results"]["failed_checks"]:
        values = Path(each["file_path"]).stem
        yield Finding(each["check_id"], _about(each["resource"]), each["check_name"], values)


def _about(resource: str) -> str:
    """`Deployment flagpost-consumer` for `Deployment.tracking.flagpost-consumer` and what checkov appends to it."""
    kind, _, name, *_ = resource.split(".")
    return f"{kind} {name}"
