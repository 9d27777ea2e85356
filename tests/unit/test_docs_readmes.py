"""The README pages list everything that exists, and the numbers in their headings are right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagpost_consumer.commands.cli import COMMANDS

ROOT = Path(__file__).parents[2]
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
COUNTED = re.compile(r"^## .*: (\w+) (?:commands?|lines?)\n(?:.*\n)*?```\w+\n((?:.*\n)*?)```", re.MULTILINE)
MEMBERS = ("schemas", "publisher", "consumer")
IMPORTED_AS = {
    "confluent-kafka": "confluent_kafka",
    "duckdb": "duckdb",
    "flagpost-publisher": "flagpost_publisher",
    "flagpost-schemas": "flagpost_schemas",
    "optimizely-sdk": "optimizely",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
}
"""The names under which some packages are imported."""


def test_the_numbers_in_headings_are_right() -> None:
    counted = COUNTED.findall((ROOT / "README.md").read_text())
    assert len(counted) >= 2
    for number, block in counted:
        assert len([line for line in block.splitlines() if line.strip()]) == NUMBERS[number], block


def test_the_consumers_page_lists_every_command() -> None:
    listed = re.findall(
        r"^\| `flagpost ([a-z-]+)", (ROOT / "consumer" / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(set(listed)) == sorted(COMMANDS)
    assert len(listed) == len(set(listed)), "one row for each command"


def declared(member: str) -> list[str]:
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    return [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]


def imported(member: str) -> Iterator[str]:
    for path in (ROOT / member / "src").rglob("*.py"):
        yield from re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_distribution_imports_everything_that_it_requires(member: str) -> None:
    used = set(imported(member))
    names = {re.split(r"[\[=<>;~! ]", each)[0] for each in declared(member)}
    assert {name for name in names if IMPORTED_AS.get(name, name) not in used} == set()


@pytest.mark.parametrize("member", MEMBERS)
def test_everything_that_a_distribution_requires_has_a_version(member: str) -> None:
    assert [each for each in declared(member) if not re.search(r"[=<>]", each.partition(";")[0])] == []


def test_the_chart_says_that_a_priority_class_is_evicted_last() -> None:
    chart = (ROOT / "helm" / "flagpost" / "README.md").read_text()
    told = re.findall(r"^\| `\w+\.priorityClassName` \|.*\| (.*) \|$", chart, re.MULTILINE)
    assert len(told) == 3
    assert all("evicted last" in each for each in told)
