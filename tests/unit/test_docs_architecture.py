"""The drawings in docs/architecture.md show the actual imports between rooms, and every import runs downwards."""

from __future__ import annotations

import pytest

from documentation import made_parts, rooms

FOUND = list(rooms.every())


@pytest.mark.parametrize("drawn", FOUND, ids=lambda drawn: drawn.name)
def test_a_drawing_is_up_to_date(drawn: rooms.Rooms) -> None:
    assert rooms.path_of(drawn).read_text() == rooms.drawn(drawn), "run: make architecture"
    assert f"](pictures/{rooms.path_of(drawn).name})" in rooms.PAGE.read_text()


@pytest.mark.parametrize("drawn", FOUND, ids=lambda drawn: drawn.name)
def test_every_import_runs_downwards(drawn: rooms.Rooms) -> None:
    assert drawn.imports
    assert all(drawn.row_of(importer) < drawn.row_of(imported) for importer, imported in drawn.imports)


def test_the_table_is_up_to_date() -> None:
    text = rooms.PAGE.read_text()
    assert made_parts.with_part(text, "architecture", "imports", rooms.table(FOUND)) == text, (
        "run: make architecture"
    )
    assert made_parts.names(text, "architecture") == ["imports"]


def test_an_arrow_that_others_imply_is_not_drawn() -> None:
    imports = (("a", "b"), ("b", "c"), ("a", "c"))
    one = rooms.Rooms("one", "One", (("a",), ("b",), ("c",)), imports)
    assert one.arrows == [("a", "b"), ("b", "c")]
    assert rooms.drawn(one).count("<path") == 2
    assert "| `a` | `b`, `c` |" in rooms.table([one])
