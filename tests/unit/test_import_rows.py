"""Reading the rows of a file: lines, quotes, delimiters, encodings, and broken rows."""

from __future__ import annotations

import gzip
import io

import pytest

from flagpost_consumer.commands.imports.json_rows import JsonRows
from flagpost_consumer.commands.imports.rows import MAX_ROW_CHARACTERS, FileProblem
from flagpost_schemas import MetadataValue, VisitorMetadata
from imported_rows import Imported, import_bytes


def values(imported: Imported) -> list[tuple[str, dict[str, MetadataValue]]]:
    found = []
    for event in imported.events:
        assert isinstance(event, VisitorMetadata)
        found.append((event.visitor_id, event.values))
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks_are_detected(
    delimiter: str, line_end: str, mark: str
) -> None:
    rows = [["visitor_id", "plan", "zip"], ["v1", "gold", "03012"], ["v2", "silver", "0"]]
    text = mark + "".join(delimiter.join(row) + line_end for row in rows)
    imported = import_bytes(text.encode(), "visitor")
    assert values(imported) == [
        ("v1", {"plan": "gold", "zip": "03012"}),
        ("v2", {"plan": "silver", "zip": "0"}),
    ]
    assert imported.lines == [2, 3]


def test_a_delimiter_within_quotes_does_not_count() -> None:
    content = b'visitor_id;"a,b,c,d";plan\nv1;x;gold\n'
    assert values(import_bytes(content, "visitor")) == [("v1", {"a,b,c,d": "x", "plan": "gold"})]


def test_a_delimiter_can_be_given() -> None:
    content = b"visitor_id~a,b\nv1~x\n"
    assert values(import_bytes(content, "visitor", delimiter="~")) == [("v1", {"a,b": "x"})]


def test_text_stays_text() -> None:
    content = b"visitor_id,zip,phone,flag,big\n007,03012,+41790000000,true,12345678901234567890123\n"
    assert values(import_bytes(content, "visitor")) == [
        (
            "007",
            {"zip": "03012", "phone": "+41790000000", "flag": "true", "big": "12345678901234567890123"},
        )
    ]


def test_a_rows_line_is_the_one_on_which_it_begins() -> None:
    content = (
        b'\n\nvisitor_id,"no\nte"\n'  # lines 1 to 4
        b'v1,"two\nlines"\n\n'  # 5 to 7
        b"v2,x,y\n"  # 8
        b'v3,"a\n\n\nb"\n'  # 9 to 12
        b",z\n"  # 13
        b"v4,last"  # 14
    )
    imported = import_bytes(content, "visitor")
    assert imported.lines == [5, 9, 14]
    assert imported.refused == [(8, None), (13, "visitor_id")]
    assert values(imported)[0] == ("v1", {"no\nte": "two\nlines"})


def test_an_empty_cell_leaves_the_field_alone_or_clears_it() -> None:
    content = b"visitor_id,plan,age:integer\nv1,,4\nv2,gold,\n"
    assert values(import_bytes(content, "visitor")) == [("v1", {"age": 4}), ("v2", {"plan": "gold"})]
    assert values(import_bytes(content, "visitor", empty="clear")) == [
        ("v1", {"plan": None, "age": 4}),
        ("v2", {"plan": "gold", "age": None}),
    ]


def test_empty_rows_are_skipped() -> None:
    content = b"visitor_id,plan\n,\nv1,gold\n\n,,,,\n"
    imported = import_bytes(content, "visitor", empty="clear")
    assert (imported.lines, imported.refused) == ([3], [])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b'v2,"bad"x', "continues after its closing quote"),
        (b'v2,"open', "a quote that opens a cell is not closed"),
        (b'v2,"' + b"x" * 200_000, "a cell has more than 131,072 characters"),
        (b"v2," + b"x" * MAX_ROW_CHARACTERS, "the row has more than 1,048,576 characters"),
        (b"v2", "the row has 1 cells and the header 2"),
        (b"v2,gold,more", "the row has 3 cells and the header 2"),
    ],
    ids=["quote within", "open quote", "large cell", "large row", "few cells", "many cells"],
)
def test_a_broken_row_affects_no_other(row: bytes, told: str) -> None:
    content = b"visitor_id,plan\nv1,gold\n" + row + b"\nv3,gold\nv4,gold\n"
    imported = import_bytes(content, "visitor")
    assert [visitor for visitor, _ in values(imported)] == ["v1", "v3", "v4"]
    assert imported.lines == [2, 4, 5]
    assert imported.refused == [(3, None)]
    assert told in imported.refusals[0].problem


def test_a_row_without_end_is_not_read_into_memory() -> None:
    """Each cell is small, and ends on the line on which the next one begins."""
    endless = b'v2,"' + b'\n","'.join([b"x" * 1000] * 3000) + b'"'
    imported = import_bytes(b"visitor_id,plan\n" + endless + b"\nv3,gold\n", "visitor")
    assert values(imported)[-1] == ("v3", {"plan": "gold"})
    assert "the row has more than" in imported.refusals[0].problem


@pytest.mark.parametrize("column", ["visitor_id", "plan", "tags"])
def test_a_row_with_bytes_that_are_not_utf_8_is_refused_with_its_column(column: str) -> None:
    cells = {"visitor_id": b"v2", "plan": b"gold", "tags": b"a|b"} | {column: b"caf\xe9"}
    content = b"visitor_id,plan,tags:list\n" + b",".join(cells.values()) + "\nv3,café,\n".encode()
    imported = import_bytes(content, "visitor")
    assert imported.refused == [(2, column)]
    assert "not UTF-8" in imported.refusals[0].problem
    assert values(imported) == [("v3", {"plan": "café"})]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty; its first row must name the columns"),
        (b"\n ,\n\n", "of the header has no name"),
        (b"\n\r\n\n", "it is empty"),
        (b'"visitor_id,plan\nv1,gold\n', "its header cannot be read: a quote"),
        (b"x" * (MAX_ROW_CHARACTERS + 5), "its header cannot be read: the row has more than"),
        (
            b"name,plan\nv1,gold\n",
            "visitor_id is not among the columns; give the column of the ids with --id",
        ),
        (b"visitor_id:integer,plan\n1,gold\n", "always text; remove :integer"),
        (
            b"secret@example.org,secret@example.org\n",
            "column 2 of the header has the same name as an earlier column",
        ),
        ("visitor_id,plan\nv1,gold\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"PK\x03\x04rest", "Excel workbook; save the table as CSV"),
        (b"\x1f\x8bno gzip", "it cannot be read"),
    ],
)
def test_a_file_whose_beginning_cannot_be_read_is_reported(content: bytes, told: str) -> None:
    with pytest.raises(FileProblem) as problem:
        import_bytes(content, "visitor")
    assert told in str(problem.value)
    assert "secret" not in str(problem.value)


def test_gzip_is_unpacked_whatever_its_name() -> None:
    packed = gzip.compress(b"visitor_id,plan\nv1,gold\n")
    assert values(import_bytes(packed, "visitor")) == [("v1", {"plan": "gold"})]
    lines = gzip.compress(b'{"visitor_id":"v1","plan":"gold"}\n')
    assert values(import_bytes(lines, "visitor", "jsonl")) == [("v1", {"plan": "gold"})]


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_gzip_that_ends_early_is_reported_with_the_line(file_format: str) -> None:
    rows = b"".join(
        b"v%d,%x\n" % (n, n**40) if file_format == "csv" else b'{"id":"v%d","a":"%x"}\n' % (n, n**40)
        for n in range(20_000)
    )
    content = b"visitor_id,a\n" + rows if file_format == "csv" else rows
    packed = gzip.compress(content)
    with pytest.raises(FileProblem, match=r"it cannot be read beyond line \d{3,}: Compressed file ended"):
        import_bytes(packed[: len(packed) // 2], "visitor", file_format)


def test_json_lines_keep_their_types() -> None:
    content = (
        b'\xef\xbb\xbf{"visitor_id":"v1","plan":"gold","age":42,"score":1.5,"active":false,"gone":null}\r\n'
        b"\n  \n"
        b'{"visitor_id":"v2","tags":["a","b"],"address":{"city":"Bern","zip":"03012"}}'
    )
    imported = import_bytes(content, "visitor", "jsonl")
    assert imported.lines == [1, 4]
    assert values(imported) == [
        ("v1", {"plan": "gold", "age": 42, "score": 1.5, "active": False, "gone": None}),
        ("v2", {"tags": ["a", "b"], "address_city": "Bern", "address_zip": "03012"}),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense", "the line is not JSON"),
        (b'{"visitor_id":"v2"', "the line is not JSON"),
        (b'{"visitor_id":"\xff"}', "the line is not JSON"),
        (b'["v2"]', "the line is not a JSON object"),
        (b'"v2"', "the line is not a JSON object"),
        (b'{"visitor_id":"v2","a":"' + b"x" * MAX_ROW_CHARACTERS + b'"}', "more than 1,048,576 bytes"),
        (b'{"visitor_id":"v2","values":' + b'{"a":' * 300 + b"1" + b"}" * 301, "nest"),
        (b'{"visitor_id":"v2","a":' + b'{"a":' * 40 + b"1" + b"}" * 41, "nest"),
    ],
    ids=["text", "cut", "not UTF-8", "list", "scalar", "long", "far too deep", "too deep"],
)
def test_a_line_that_is_not_a_row_affects_no_other(line: bytes, told: str) -> None:
    good = b'{"visitor_id":"v%d","plan":"gold"}\n'
    imported = import_bytes(good % 1 + line + b"\n" + good % 3, "visitor", "jsonl")
    assert imported.lines == [1, 3]
    assert [line for line, _ in imported.refused] == [2]
    assert told in imported.refusals[0].problem


def test_a_refusal_has_the_unchanged_row() -> None:
    imported = import_bytes(b'visitor_id,plan\n v1,"a\nb"\nv2,"open\nv3,gold\n', "visitor")
    assert [refusal.text for refusal in imported.refusals] == [' v1,"a\nb"\n', 'v2,"open\n']


def test_a_long_line_is_not_read_into_memory() -> None:
    class Counting(io.BytesIO):
        longest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            self.longest = max(self.longest, len(line))
            return line

    stream = Counting(b"x" * (5 * MAX_ROW_CHARACTERS) + b"\n{}\n")
    assert len(list(JsonRows(stream))) == 2
    assert stream.longest == MAX_ROW_CHARACTERS + 1
