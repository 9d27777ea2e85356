"""The pages that a company and a contributor look for first exist, and each issue form can be filled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md")
KINDS = {"markdown", "input", "textarea", "dropdown", "checkboxes"}


def form(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


@pytest.mark.parametrize("name", PAGES)
def test_the_readme_links_the_page_and_the_page_has_no_invented_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert f"]({name})" in (ROOT / "README.md").read_text()
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text), "an address that nobody reads"


def test_a_vulnerability_is_reported_privately_and_not_in_an_issue() -> None:
    assert "private vulnerability reporting" in " ".join((ROOT / "SECURITY.md").read_text().split())
    bug = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert "SECURITY.md" in bug


def test_the_licence_is_the_whole_text_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.split("\n", 3)[1:3] == [" " * 33 + "Apache License", " " * 27 + "Version 2.0, January 2004"]
    assert re.findall(r"^   (\d)\. [A-Z]", text, re.MULTILINE) == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    "path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem
)
def test_a_form_can_be_filled_in(path: Path) -> None:
    content = form(path)
    assert {"name", "description", "body"} <= set(content)
    assert {each["type"] for each in content["body"]} <= KINDS
    asked = [each for each in content["body"] if each["type"] != "markdown"]
    assert asked
    assert len({each["id"] for each in asked}) == len(asked)
    assert all(each["attributes"]["label"] for each in asked)
    assert any(each.get("validations", {}).get("required") for each in asked)
