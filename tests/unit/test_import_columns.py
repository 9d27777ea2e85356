"""The names and types in a CSV's header, and how a cell is read by its column's type."""

from __future__ import annotations

import pytest

from flagpost_consumer.commands.imports.columns import (
    READERS,
    CellError,
    Column,
    ColumnType,
    read_columns,
    read_occurred_at,
)
from flagpost_consumer.commands.imports.rows import FileProblem


def test_a_header_gives_names_and_types() -> None:
    assert read_columns(["visitor_id", " plan ", "age:integer", "tags : tag:list"], []) == [
        Column("visitor_id"),
        Column("plan"),
        Column("age", ColumnType.INTEGER),
        Column("tags : tag", ColumnType.LIST),
    ]


def test_types_may_be_given_separately_from_the_header() -> None:
    assert read_columns(["id", "age", "score:integer"], ["age:integer", "score:number"]) == [
        Column("id"),
        Column("age", ColumnType.INTEGER),
        Column("score", ColumnType.NUMBER),
    ]


@pytest.mark.parametrize(
    ("header", "typed", "told"),
    [
        (
            ["id", "age:int"],
            [],
            "column 2 of the header: the text after the colon is not a type; types are string",
        ),
        (["id", "a", "a"], [], "column 3 of the header has the same name as an earlier column"),
        (
            ["id", "a:string", "a:integer"],
            [],
            "column 3 of the header has the same name as an earlier column",
        ),
        (["id", "", "b"], [], "column 2 of the header has no name"),
        (["id", ":integer"], [], "column 2 of the header has no name"),
        (["id", "caf\udce9"], [], "column 2 of the header is not UTF-8"),
        (["id"], ["age:integer"], 'no column "age"'),
        (["id"], ["id:text"], "--column: the text after the colon is not a type"),
    ],
)
def test_a_header_that_cannot_be_used_is_reported(header: list[str], typed: list[str], told: str) -> None:
    with pytest.raises(FileProblem) as problem:
        read_columns(header, typed)
    assert told in str(problem.value)


@pytest.mark.parametrize(
    ("column_type", "cell", "value"),
    [
        ("integer", "42", 42),
        ("integer", " -7 ", -7),
        ("integer", "+5", 5),
        ("integer", "007", 7),
        ("integer", "9223372036854775807", 2**63 - 1),
        ("number", "1.5", 1.5),
        ("number", "-1e3", -1000.0),
        ("number", ".5", 0.5),
        ("number", "2", 2.0),
        ("boolean", "true", True),
        ("boolean", "FALSE", False),
        ("boolean", " True ", True),
        ("timestamp", "2026-01-31", "2026-01-31T00:00:00Z"),
        ("timestamp", "2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("timestamp", "2026-01-31T12:00:00.250Z", "2026-01-31T12:00:00.250000Z"),
        ("timestamp", "1800000000000", "2027-01-15T08:00:00Z"),
        ("list", "red|blue", ["red", "blue"]),
        ("list", " red | blue ", ["red", "blue"]),
        ("list", "red", ["red"]),
        ("list", '["a|b","c"]', ["a|b", "c"]),
    ],
)
def test_a_cell_is_read_by_its_columns_type(column_type: str, cell: str, value: object) -> None:
    read = READERS[ColumnType(column_type)]
    assert read is not None
    found = read(cell)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("column_type", "cell"),
    [
        ("integer", "1.0"),
        ("integer", "1,000"),
        ("integer", "1_000"),
        ("integer", "٣"),
        ("integer", "9223372036854775808"),
        ("integer", "forty"),
        ("number", "1,5"),
        ("number", "nan"),
        ("number", "1e999"),
        ("number", "1_0"),
        ("number", "0x10"),
        ("boolean", "yes"),
        ("boolean", "1"),
        ("timestamp", "31.01.2026"),
        ("timestamp", "2025-02-28T12:00:00"),
        ("timestamp", "2026-13-01"),
        ("timestamp", "9223372036854775807"),
        ("timestamp", "0001-01-01T00:00:00+23:59"),
        ("list", '["a", 1]'),
        ("list", '["a"'),
    ],
)
def test_a_cell_that_does_not_fit_is_refused_without_its_value(column_type: str, cell: str) -> None:
    read = READERS[ColumnType(column_type)]
    assert read is not None
    with pytest.raises(CellError) as problem:
        read(cell)
    assert str(problem.value).startswith("is n")
    assert "; write " in str(problem.value)
    assert cell not in str(problem.value)


@pytest.mark.parametrize(
    ("cell", "moment_ms"),
    [
        ("1800000000000", 1_800_000_000_000),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        (" 2026-01-31T13:00:00.5+01:00 ", 1_769_860_800_500),
    ],
)
def test_the_time_of_an_event_is_read_as_milliseconds(cell: str, moment_ms: int) -> None:
    assert read_occurred_at(cell) == moment_ms


@pytest.mark.parametrize("cell", ["soon", "2026-01-31", "2026-01-31T12:00:00", "99999999999999999999", "1.5"])
def test_an_invalid_moment_is_refused(cell: str) -> None:
    with pytest.raises(CellError, match="is not a time; write epoch milliseconds"):
        read_occurred_at(cell)
