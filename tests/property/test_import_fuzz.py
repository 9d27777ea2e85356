"""Any import file: what csv.writer or json wrote is read unchanged, and any bytes are imported or refused by line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time

from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.imports.rows import FileProblem
from flagpost_schemas import AccountMetadata, TrackEvent, VisitorMetadata, partition_key
from imported_rows import Imported, import_bytes

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
"""A NUL is refused: see test_nul_and_utf16."""
TEXTS = st.text(CHARACTERS, max_size=30) | st.sampled_from(
    [
        "007",
        "1e5",
        "true",
        '"',
        '""',
        ",",
        ";",
        "a\nb",
        "\r\n",
        "\r",
        "'",
        "=1+1",
        " x ",
        "\ufeff",
        "[1]",
    ]
)
IDS = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda text: text == text.strip())
INTEGERS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: name.replace("_", "").lower() not in ("id", "visitorid", "occurredat")
)
VALUES = {"string": TEXTS, "integer": INTEGERS, "number": NUMBERS, "boolean": st.booleans()}


@st.composite
def tables(draw: st.DrawFn, *, full: bool = False) -> tuple[list[str], list[tuple[str, list[object]]]]:
    """A header of typed columns, and rows of an id and a value, or None, for each; `full`: no cell is empty."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    types = [draw(st.sampled_from(list(VALUES))) for _ in names]
    cells = [
        VALUES[each].filter(lambda value: value != "") if full else st.none() | VALUES[each] for each in types
    ]
    row = st.tuples(IDS, st.tuples(*cells).map(list))
    header = [f"{name}:{each}" for name, each in zip(names, types, strict=True)]
    return header, draw(st.lists(row, max_size=6))


def as_cell(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def wanted(header: list[str], rows: list[tuple[str, list[object]]]) -> list[tuple[str, dict[str, object]]]:
    """Ids and values of the rows that have a value; an empty text is an empty cell."""
    names = [column.rpartition(":")[0] for column in header]
    given_values = [
        (visitor, {name: value for name, value in zip(names, row, strict=True) if value not in (None, "")})
        for visitor, row in rows
    ]
    return [(visitor, values) for visitor, values in given_values if values]


def said(imported: Imported) -> list[tuple[str, dict[str, object]]]:
    found = []
    for event in imported.events:
        assert isinstance(event, VisitorMetadata)
        found.append((event.visitor_id, dict[str, object](event.values)))
    return found


@given(
    tables(),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
@settings(deadline=None)
def test_a_file_that_csv_writer_wrote_is_read_unchanged(
    table: tuple[list[str], list[tuple[str, list[object]]]],
    delimiter: str,
    line_end: str,
    quoting: int,
    packed: bool,
) -> None:
    header, rows = table
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["visitor_id", *header])
    writer.writerows([visitor, *map(as_cell, row)] for visitor, row in rows)
    # With "\n" as its line end, csv.writer leaves a "\r" without quotes, which then ends a line.
    assume(line_end == "\r\n" or quoting == csv.QUOTE_ALL or "\r" not in text.getvalue())
    content = text.getvalue().encode()
    imported = import_bytes(gzip.compress(content) if packed else content, "visitor")
    assert said(imported) == wanted(header, rows)
    assert len(imported.refusals) == len(rows) - len(imported.records)  # rows without a value


@given(tables())
@settings(deadline=None)
def test_a_file_that_json_wrote_is_read_unchanged(
    table: tuple[list[str], list[tuple[str, list[object]]]],
) -> None:
    header, rows = table
    names = [column.rpartition(":")[0] for column in header]
    content = "".join(
        json.dumps({"visitor_id": visitor, **dict(zip(names, row, strict=True))}) + "\n"
        for visitor, row in rows
    )
    imported = import_bytes(content.encode(), "visitor", "jsonl")
    assert imported.refusals == []
    assert said(imported) == [(visitor, dict(zip(names, row, strict=True))) for visitor, row in rows]


@given(tables(full=True))
@settings(deadline=None)
def test_both_formats_make_the_same_events(table: tuple[list[str], list[tuple[str, list[object]]]]) -> None:
    header, rows = table
    names = [column.rpartition(":")[0] for column in header]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", *header], *([visitor, *map(as_cell, row)] for visitor, row in rows)])
    lines = "".join(
        json.dumps(dict(zip([*names, "id"], [*row, visitor], strict=True))) + "\n" for visitor, row in rows
    )
    by_csv = import_bytes(text.getvalue().encode(), "visitor")
    by_json = import_bytes(lines.encode(), "visitor", "jsonl")
    assert [event.event_id for event in by_csv.events] == [event.event_id for event in by_json.events]


FRAGMENTS = st.sampled_from(
    [b'"', b'""', b",", b";", b"\n", b"\r\n", b"\r", b"\t", b"v1", b"visitor_id", b"event", b"a:integer", b"42",
     b"\xff", b"\xef\xbb\xbf", b"\x00", b"{", b"}", b'{"visitor_id":"v","a":1}', b'"values":{', b'"properties":{}',
     b'{"visitor_id":"v","event":"e","timestamp":', b"null", b"1e999", b"9223372036854775808", b'"\\ud800"', b"[",
     b"occurred_at", b"2026-01-31T12:00:00Z", b"-1", b'"consent":{"analytics":1}', b'"context":{"ip":2}', b":", b" "]
)  # fmt: skip
FILES = st.lists(FRAGMENTS | st.binary(max_size=6), max_size=40).map(b"".join)
HEADERS = st.sampled_from(
    [b"", b"visitor_id,a:integer\n", b"account_id;a;b\n", b"visitor_id,event,occurred_at,p\n"]
)


@given(
    HEADERS,
    FILES,
    st.sampled_from(["visitor", "account", "track"]),
    st.sampled_from(["csv", "jsonl"]),
    st.sampled_from([None, "leave", "clear"]),
)
@settings(deadline=None, max_examples=examples(200))
def test_any_bytes_are_imported_or_refused_by_line(
    header: bytes, rows: bytes, type_name: str, file_format: str, empty: str | None
) -> None:
    content = rows if file_format == "jsonl" else header + rows
    for_csv = file_format == "csv" and type_name != "track"
    try:
        imported = import_bytes(content, type_name, file_format, empty=empty if for_csv else None)
    except FileProblem:
        return
    lines = [refusal.line for refusal in imported.refusals] + imported.lines
    assert len(set(lines)) == len(lines), "a line begins one row at most"
    assert all(1 <= line <= len(content.splitlines()) + content.count(b"\r") + 1 for line in lines)
    assert all(refusal.problem for refusal in imported.refusals)
    for event, (_, record) in zip(imported.events, imported.records, strict=True):
        assert isinstance(event, TrackEvent | VisitorMetadata | AccountMetadata)
        assert record.key == partition_key(event)
        assert record.key
        assert event.occurred_at <= time.time() * 1000 + 300_000


@given(FILES, st.sampled_from(["visitor", "track"]), st.sampled_from(["csv", "jsonl"]))
@settings(deadline=None, max_examples=examples(60))
def test_the_command_never_ends_in_a_traceback(content: bytes, type_name: str, file_format: str) -> None:
    result = CliRunner().invoke(
        flagpost,
        ["import", "-", "--format", file_format, "--type", type_name, "--dry-run", "--json"],
        input=content,
        env={"FLAGPOST_CONFIG": None},
    )
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    if not result.stdout:
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: standard input: ")
        return
    document = json.loads(result.stdout)
    assert document["rows"] == document["imported"] + len(document["refused"])
    assert result.exit_code == (1 if document["refused"] else 0)
