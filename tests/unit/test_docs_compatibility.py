"""docs/compatibility.md names tests and pages that exist, and a proof for every feature."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from named_tests import NAMED, ROOT, missing_tests

PAGE = ROOT / "docs" / "compatibility.md"
LINK = re.compile(r"\]\((?!https://)([^)#]*)(?:#([^)]*))?\)")
FEATURES_COLUMNS, SOURCES = 4, set("ODZHP")


def rows() -> Iterator[list[str]]:
    """The cells of each table row, headings left out."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] not in {"", "feature"}:
            yield cells


def features() -> list[list[str]]:
    return [cells for cells in rows() if len(cells) == FEATURES_COLUMNS]


@pytest.mark.parametrize("cells", features(), ids=lambda cells: cells[0][:40])
def test_each_feature_has_sources_a_page_and_a_test_that_exists(cells: list[str]) -> None:
    _, sources, page, proof = cells
    assert set(sources.split()) <= SOURCES
    assert sources
    assert LINK.search(page)
    assert NAMED.search(proof)
    assert not missing_tests(proof)


def test_all_five_sources_are_covered() -> None:
    named = {source for cells in features() for source in cells[1].split()}
    assert named == SOURCES


def test_each_thing_out_of_scope_has_a_reason() -> None:
    outside = PAGE.read_text().partition("## Out of scope")[2]
    told = [line.strip("| ").split(" | ") for line in outside.splitlines() if line.startswith("| ")]
    assert len(told) > 1
    assert all(len(cells) == 3 and cells[2] for cells in told)
