"""docs/guarantees.md names a test for each promise, and each named test exists."""

from __future__ import annotations

import re

import pytest

from named_tests import NAMED, ROOT, missing_tests

PAGE = ROOT / "docs" / "guarantees.md"
TABLES = ("Delivery", "Progress and isolation", "Bounds")


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def promises() -> list[list[str]]:
    """The cells of each table row, headings left out."""
    tables = ([line for line in sections()[title].splitlines() if line.startswith("|")] for title in TABLES)
    rows = (row for table in tables for row in table[2:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("cells", promises(), ids=lambda cells: cells[0][:40])
def test_each_promise_has_a_test_that_exists(cells: list[str]) -> None:
    *promise, proof = cells
    assert all(promise)
    assert NAMED.search(proof)
    assert not missing_tests(proof)


def invariants() -> dict[str, str]:
    _, *parts = re.split(r"^### (.+)$", sections()["Invariants"], flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("title", invariants())
def test_each_invariant_has_a_test_that_exists(title: str) -> None:
    promise, _, proof = invariants()[title].partition("Held by")
    assert promise.strip()
    assert NAMED.search(proof)
    assert not missing_tests(proof)


def test_there_are_promises_of_each_sort() -> None:
    assert len(promises()) > 30
    assert len(invariants()) == 12
    assert set(TABLES) < sections().keys()


@pytest.mark.parametrize(
    "named",
    [
        "`tests/unit/test_docs_guarantees.py::test_that_is_not_there`",
        "`tests/unit/test_not_there.py::test_anything`",
        "`tests/unit/test_docs_guarantees.py::sections`",
    ],
)
def test_a_test_that_does_not_exist_is_found(named: str) -> None:
    assert missing_tests(named) == [named.strip("`")]
    assert missing_tests("`tests/unit/test_docs_guarantees.py::test_there_are_promises_of_each_sort`") == []
