"""docs/decisions: every decision has a number, the same form, and a name that says what was decided."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documentation import decisions

RECORDS = decisions.records()


def test_the_decisions_are_numbered_without_a_gap() -> None:
    assert [path.name[:4] for path in RECORDS] == [f"{number:04}" for number in range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_a_title_a_status_and_reasons(path: Path) -> None:
    assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+", path.stem)
    title, blank, status, *reasons = path.read_text().splitlines()
    assert re.fullmatch(rf"# {int(path.stem[:4])}\. .{{10,}}", title)
    assert not blank
    assert re.fullmatch(r"Status: (accepted|replaced by .+)( \(.+\))?", status)
    assert len(" ".join(reasons)) > 200


def test_the_list_is_up_to_date() -> None:
    assert decisions.PAGE.read_text() == decisions.page(), "run: make decisions"
    assert decisions.page().count("\n| [") == len(RECORDS)
