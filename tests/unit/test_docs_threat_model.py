"""docs/threat-model.md names an existing test for each thing that somebody can send."""

from __future__ import annotations

import pytest

from named_tests import NAMED, ROOT, missing_tests

PAGE = (ROOT / "docs" / "threat-model.md").read_text()
HEADING = ["who", "can send", "costs at most", "the test that holds it"]


def rows() -> list[list[str]]:
    """The cells of each row of each table, the headings left out."""
    lines = (line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---"))
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [row for row in cells if row != HEADING]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_each_thing_that_can_be_sent_has_a_bound_and_an_existing_test(row: list[str]) -> None:
    who, sent, cost, proof = row
    assert who
    assert sent
    assert cost
    assert NAMED.search(proof)
    assert not missing_tests(proof)


def test_every_port_is_on_the_page() -> None:
    assert len(rows()) > 20
    for setting in ("gateway.port", "gateway.admin_port", "admin.port", "web.port"):
        assert f"`{setting}`" in PAGE
