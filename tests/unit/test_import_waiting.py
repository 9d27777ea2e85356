"""`import --wait`: the rows that it waits for, its report, and its question about fields that Pendo does not have."""

from __future__ import annotations

import csv
import json
import stat
import sys
import tracemalloc
from pathlib import Path

import click
import pytest

from flagpost_consumer.commands.imports import field_question
from flagpost_consumer.commands.imports.awaited import Awaited, AwaitedRow
from flagpost_consumer.commands.imports.row_report import FIELDS, RowReport
from flagpost_consumer.commands.imports.rows import Refusal
from flagpost_schemas import LedgerEntry
from imported_rows import options_of

DELIVERED = LedgerEntry(
    offset=7, kind="visitor_metadata", outcome="delivered", reason="ok", attempts=1, status=200
)
DROPPED = LedgerEntry(offset=8, kind="visitor_metadata", outcome="dropped", reason="field_missing")


def test_rows_end_once_and_other_records_settlements_are_ignored() -> None:
    awaited = Awaited()
    for line, partition, offset in [(2, 0, 5), (3, 1, 5), (4, 0, 9), (5, 0, 7)]:  # one out of order
        awaited.add(line, partition, offset)
    assert [awaited.end(0, 7), awaited.end(0, 5), awaited.end(0, 5)] == [5, 2, None]
    assert [awaited.end(0, 6), awaited.end(2, 5), awaited.end(0, 100)] == [None, None, None]
    assert (awaited.total, awaited.left) == (4, 2)
    assert list(awaited.rest()) == [AwaitedRow(4, 0, 9), AwaitedRow(3, 1, 5)]


@pytest.mark.thorough
def test_rows_take_some_twenty_bytes_each() -> None:
    rows = 100_000
    tracemalloc.start()
    try:
        awaited = Awaited()
        for line in range(rows):
            awaited.add(line, line % 3, line // 3)
        assert tracemalloc.get_traced_memory()[1] / rows < 20
    finally:
        tracemalloc.stop()


def reported(path: Path) -> RowReport:
    report = RowReport(str(path))
    report.refuse(Refusal(2, "age", "is not a whole number", "v2,forty"))
    report.end(AwaitedRow(3, 0, 7), DELIVERED, 1_795_905_600_000)
    report.end(AwaitedRow(4, 0, 8), DROPPED, 1_795_905_600_500)
    report.leave(AwaitedRow(5, 1, 9), "timed_out", "no row has ended for 300 s")
    report.close()
    return report


def test_the_report_has_every_row_as_csv_or_as_json_lines(tmp_path: Path) -> None:
    report = reported(tmp_path / "ends.csv")
    reported(tmp_path / "ends.jsonl")
    with (tmp_path / "ends.csv").open() as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "ends.jsonl").read_text().splitlines()]
    for row in (rows, objects):
        assert [tuple(each) for each in row] == [FIELDS] * 4
    assert [(each["line"], each["outcome"], each["reason"]) for each in objects] == [
        (2, "refused", None),
        (3, "delivered", "ok"),
        (4, "dropped", "field_missing"),
        (5, "pending", "timed_out"),
    ]
    assert objects[0]["detail"] == "column age: is not a whole number"
    assert objects[1]["settled_at"] == rows[1]["settled_at"] == "2026-11-28T22:40:00.000Z"
    assert "forty" not in (tmp_path / "ends.csv").read_text(), "no value is in it"
    assert stat.S_IMODE((tmp_path / "ends.csv").stat().st_mode) == 0o600
    assert report.counts == {
        ("delivered", "ok"): 1,
        ("dropped", "field_missing"): 1,
        ("pending", "timed_out"): 1,
    }
    assert not report.is_well


def test_no_cell_of_a_report_is_a_formula_for_a_spreadsheet(tmp_path: Path) -> None:
    for name in ("ends.csv", "ends.jsonl"):
        report = RowReport(str(tmp_path / name))
        report.refuse(Refusal(2, None, "=HYPERLINK(1) is no id", "=HYPERLINK(1)"))
        report.close()
    with (tmp_path / "ends.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["detail"] == "'=HYPERLINK(1) is no id"
    assert json.loads((tmp_path / "ends.jsonl").read_text())["detail"] == "=HYPERLINK(1) is no id"


def test_a_report_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="the file of --report cannot be written: No such file"):
        RowReport(str(tmp_path / "nowhere" / "ends.csv"))


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_the_user_is_asked(answer: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    asked: list[str] = []

    def confirm(text: str, *, err: bool) -> bool:
        assert err
        asked.append(text)
        return answer.startswith("y")

    monkeypatch.setattr(click, "confirm", confirm)
    field_question._ask(options_of("visitor", yes=True))
    assert asked == [], "--yes asks nothing"
    if goes_on:
        field_question._ask(options_of("visitor"))
    else:
        with pytest.raises(click.ClickException, match="nothing was imported"):
            field_question._ask(options_of("visitor"))
    assert len(asked) == 1
