"""The alerts and recording rules are valid and tested, and each alert has a runbook that says what to do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.asked import ALERTS, RUNBOOKS, alerts, recorded, rules
from observability.prometheus_parts import Programs

TESTS = Path(__file__).parent / "rules"
SEVERITIES = {"critical", "warning", "info"}
SECTIONS = ["What it means", "Why it matters", "Look at", "Do"]

Rule = Mapping[str, Any]


def promtool(programs: Programs, *arguments: str | Path) -> None:
    done = subprocess.run(
        [programs.promtool, *arguments], capture_output=True, text=True, check=False, cwd=TESTS
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", rules())
def test_the_rules_are_valid(prometheus_programs: Programs, name: str) -> None:
    promtool(prometheus_programs, "check", "rules", ALERTS / f"{name}.yaml")


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rules_pass_promtools_tests(prometheus_programs: Programs, path: Path) -> None:
    promtool(prometheus_programs, "test", "rules", path)


@cache
def tried() -> list[Rule]:
    """The expectations of promtool's tests."""
    files = [yaml.safe_load(path.read_text()) for path in TESTS.glob("*.yaml")]
    return [each for file in files for test in file["tests"] for each in test.get("alert_rule_test", [])]


@pytest.mark.parametrize(
    "rule", alerts(), ids=lambda rule: f"{rule['alert']}{rule['labels'].get('burn', '')}"
)
def test_every_alert_is_tested_when_it_fires_and_when_not(rule: Rule) -> None:
    expected = [each["exp_alerts"] for each in tried() if each["alertname"] == rule["alert"]]
    own = [
        [alert for alert in fired if rule["labels"].items() <= alert["exp_labels"].items()]
        for fired in expected
    ]
    assert any(own), "no test in which it fires"
    assert not all(own), "no test in which it does not fire"


@pytest.mark.parametrize(
    "rule", alerts(), ids=lambda rule: f"{rule['alert']}{rule['labels'].get('burn', '')}"
)
def test_every_alert_says_what_is_wrong_and_has_a_runbook(rule: Rule) -> None:
    annotations = rule["annotations"]
    assert rule["alert"].startswith("Flagpost")
    assert rule["labels"]["severity"] in SEVERITIES
    assert annotations.keys() == {"summary", "description"}, "the chart adds the runbook's address"
    assert len(annotations["description"]) > 40
    assert (RUNBOOKS / f"{rule['alert']}.md").is_file()


def test_every_runbook_is_of_an_alert_and_listed() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in alerts()}
    index = (RUNBOOKS / "README.md").read_text()
    assert set(re.findall(r"\]\((Flagpost\w+)\.md\)", index)) == pages


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("Flagpost*.md")), ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_and_ends_in_commands(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert re.search(r"```sh\n.+?```", text.split("## Do\n")[1], re.DOTALL)
    severities = {rule["labels"]["severity"] for rule in alerts() if rule["alert"] == path.stem}
    for severity in severities:
        assert severity in text.split("##")[0], f"it is {severity}"


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    assert recorded()
    assert all(
        re.fullmatch(r"(pod|release|cronjob):flagpost_\w+:(sum|max|min|ratio_rate\w+)", name)
        for name in recorded()
    )
