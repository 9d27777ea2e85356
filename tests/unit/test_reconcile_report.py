"""The options and the output of `flagpost reconcile`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.reconcile.at_pendo import AtPendo
from flagpost_consumer.commands.reconcile.command import ExpectedSplit
from flagpost_consumer.commands.reconcile.counting import Books, Counts, Row, Unexplained
from flagpost_consumer.commands.reconcile.csv_form import csv_text
from flagpost_consumer.commands.reconcile.parts import By
from flagpost_consumer.commands.reconcile.reading import Reconciliation
from flagpost_consumer.commands.reconcile.report import Report
from flagpost_consumer.commands.reconcile.sentences import show
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_schemas import Source

ROW: Row = ("checkout", "treatment")


def reconciliation(**found: Any) -> Reconciliation:
    books = Books(rows={ROW: Counts(published=12_345, delivered=12_300, dropped=45)})
    books.metadata = Counts(published=3, delivered=3)
    visitors = {ROW: VisitorCounts(12_300, 12_297, {"no_consent": 2, "pending": 1})}
    return Reconciliation(1_800_000_000_000, 1_800_000_060_000, books, visitors, **found)


def shown(report: Report, width: int = 200) -> list[str]:
    console = Terminal(width=width, file=io.StringIO(), highlight=False)
    show(report, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_wide_terminal_shows_a_table_and_one_sentence() -> None:
    lines = shown(Report(reconciliation(), ()))
    assert lines[0] == "From 2027-01-15 08:00:00Z to 2027-01-15 08:01:00Z"
    assert [line.split() for line in lines[3:7]] == [
        ["checkout", "treatment", "12,300", "12,297", "3", "12,345", "12,300", "0", "45", *"000000"[:5]],
        ["(no", "flag)", *"000000000"],
        ["all", "track", "events", "12,345", "12,300", "0", "45", *"00000"],
        ["metadata", "3", "3", *"0000000"],
    ]
    assert lines[7] == "3 of checkout, treatment not delivered (0.0 %): 2 no_consent, 1 pending"
    assert "\n".join(lines[8:]) == (
        "12,348 deliveries were published: 12,303 are delivered, 0 are duplicates, 45 dropped, 0 dead-lettered "
        "(0 of them replayed), 0 pending, 0 unexplained."
    )


def test_eighty_columns_show_a_block_for_each_variation() -> None:
    found = reconciliation()
    found.books.rows[ROW].reasons.update({"no_consent": 40, "not_dispatched": 5})
    assert shown(Report(found, (), {ROW: AtPendo(12_301, 12_290)}), 80) == [
        "From 2027-01-15 08:00:00Z to 2027-01-15 08:01:00Z",
        "checkout, treatment",
        "    12,300 visitors published → 12,297 delivered → 12,290 counted by Pendo",
        "    3 not delivered (0.0 %): 2 no_consent, 1 pending",
        "    12,345 events: 12,300 delivered, 45 dropped, 0 pending, 0 unexplained (why:",
        "    40 no_consent, 5 not_dispatched)",
        "    Pendo counts 12,301 events; expected 12,300, +1",
        "metadata: 3 events: 3 delivered, 0 pending, 0 unexplained",
        "checkout, treatment: Pendo counts 12,301, but 12,300 are expected.",
        "Pendo counts whole days, by the times of the events, and counts late events only",
        "after hours: the comparison is best for a window of whole past days.",
        "12,348 deliveries were published: 12,303 are delivered, 0 are duplicates, 45",
        "dropped, 0 dead-lettered (0 of them replayed), 0 pending, 0 unexplained.",
    ]


@pytest.mark.parametrize("by", [None, *By])
def test_nothing_is_wider_than_eighty_columns(by: By | None) -> None:
    long = ("a-flag-" * 20, "a-variation-" * 20)
    source = Source(service="service-" * 20, environment="production", sdk="python-sdk", sdk_version="5.2.0")
    found = reconciliation()
    lost = {reason.value: 1_000_000 for reason in Reason if reason is not Reason.OK}
    found.books.rows[long] = Counts(
        published=10**9, delivered=10**9, dead_lettered=10**9, sent_again=10**9, reasons=Counter(lost)
    )
    found.visitors = {long: VisitorCounts(10**9, 1, lost)}
    found.books.parts = {(long, part): Counts(10**9) for part in ("2026-11-20", source)}
    found.visitor_parts = {(long, part): VisitorCounts(10**9, 1, lost) for part in ("2026-11-20", source)}
    for line in shown(Report(found, (), {long: AtPendo(10**9, 10**9)}, by), 80):
        assert len(line) <= 80, line


def test_by_reason_visitors_and_events_add_up_to_the_difference() -> None:
    found = reconciliation()
    found.books.rows[ROW].reasons["no_consent"] = 45
    lines = [line.split() for line in shown(Report(found, (), None, By.REASON))]
    assert lines[lines.index(["reason", "visitors", "events"]) :][:4] == [
        ["reason", "visitors", "events"],
        ["no_consent", "2", "45"],
        ["pending", "1", "0"],
        ["not", "delivered", "3", "45"],
    ]


def test_by_day_and_by_source_each_part_has_its_visitors() -> None:
    source = Source(service="shop", environment="prod", sdk="python-sdk", sdk_version="5.2.0")
    found = reconciliation()
    for part in ("2026-11-20", source):
        found.books.parts[ROW, part] = Counts(published=7, delivered=6)
    found.visitor_parts = {
        (ROW, part): VisitorCounts(5, 4, {"rejected": 1}) for part in ("2026-11-20", source)
    }
    for by, name in ((By.DAY, "2026-11-20"), (By.SOURCE, "shop (prod, python-sdk 5.2.0)")):
        report = Report(found, (), None, by)
        (line,) = (line for line in shown(report) if line.strip().startswith(name))
        assert line.split(name)[1].split() == ["5", "4", "1", "7", "1", "rejected"]
        assert csv_text(report).splitlines()[1].startswith("checkout,treatment,")
    parts = Report(found, (), None, By.SOURCE).as_json()["rows"][0]["parts"]
    assert {(part.get("day"), part.get("service"), part["visitors"]["lost"]) for part in parts} == {
        ("2026-11-20", None, 1),
        (None, "shop", 1),
    }


def test_csv_has_a_line_for_each_variation_and_by_reason_one_for_each_reason() -> None:
    found = reconciliation()
    found.books.rows[ROW].reasons["no_consent"] = 45
    (plain,) = csv.DictReader(io.StringIO(csv_text(Report(found, (), {ROW: AtPendo(12_300, 12_297)}))))
    assert (plain["flag_key"], plain["variation_key"], plain["visitors_lost"]) == (*ROW, "3")
    assert (plain["published"], plain["dropped"], plain["pendo_visitors"]) == ("12345", "45", "12297")
    by_reason = list(csv.DictReader(io.StringIO(csv_text(Report(found, (), None, By.REASON)))))
    assert [(line["reason"], line["visitors"], line["events"]) for line in by_reason] == [
        ("delivered", "12297", "12300"),
        ("no_consent", "2", "45"),
        ("pending", "1", "0"),
    ]
    assert sum(int(line["visitors"]) for line in by_reason) == 12_300


def test_csv_without_a_row_has_its_header_and_a_name_is_no_formula() -> None:
    found = reconciliation()
    found.books.rows, found.visitors = {("=1+1", "@x"): Counts(published=1)}, {}
    (line,) = csv.DictReader(io.StringIO(csv_text(Report(found, ()))))
    assert (line["flag_key"], line["variation_key"]) == ("'=1+1", "'@x")
    found.books.rows = {}
    for by in (None, *By):
        (head,) = csv_text(Report(found, (), None, by)).splitlines()
        assert head.startswith("flag_key,variation_key,")


def test_unexplained_deliveries_are_listed_with_what_to_do() -> None:
    found = reconciliation()
    found.books.rows[ROW].unexplained = 11
    found.books.examples = [Unexplained(2, offset, Kind.TRACK) for offset in range(10)]
    (line,) = (line for line in shown(Report(found, ()), 1000) if line.startswith("Unexplained"))
    assert "2/0/track, 2/1/track" in line
    assert "2/9/track, …." in line
    assert 'see docs/reconcile.md, "Unexplained"' in line


def test_lost_offsets_are_in_the_last_sentence() -> None:
    found = reconciliation(lost_offsets=1_234)
    assert not found.adds_up
    assert shown(Report(found, ()), 1000)[-1].endswith(
        "0 unexplained; 1,234 offsets were lost before the group read them."
    )


def test_flags_that_only_pendo_has_are_rows_too() -> None:
    document = Report(
        reconciliation(), (), {ROW: AtPendo(12_300, 12_000), ("gone", None): AtPendo(2, None)}
    ).as_json()
    (ours, pendos) = document["rows"]
    assert ours["pendo"] == {
        "counted": 12_300,
        "expected_min": 12_300,
        "expected_max": 12_300,
    }
    assert (ours["pendo_visitors"], pendos["pendo_visitors"]) == (12_000, None)
    assert ours["visitors"] == {
        "decided": 12_300,
        "delivered": 12_297,
        "lost": 3,
        "by_reason": {"no_consent": 2, "pending": 1},
    }
    assert (pendos["flag_key"], pendos["variation_key"], pendos["published"]) == ("gone", None, 0)
    assert pendos["pendo"] == {"counted": 2, "expected_min": 0, "expected_max": 0}
    assert document["warnings"][0] == "gone, no variation: Pendo counts 2, but 0 are expected."


def test_a_flags_name_moves_no_cursor_and_is_no_markup() -> None:
    found = reconciliation()
    found.books.rows[("\x1b[2J[bold]x", "a\nb")] = Counts()
    text = "\n".join(shown(Report(found, (), {})))
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_a_split_is_a_flag_and_shares() -> None:
    assert ExpectedSplit().convert("checkout=a:50,b:50", None, None) == ("checkout", {"a": 50.0, "b": 50.0})
    assert ExpectedSplit().convert("k=v=a:b:0.9,off:.1", None, None) == ("k=v", {"a:b": 0.9, "off": 0.1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "checkout",
        "checkout=",
        "=a:1,b:1",
        "f=a:1",
        "f=a:1,a:1",
        "f=a:0,b:1",
        "f=a:-1,b:1",
        "f=a,b",
        "f=a:nan,b:1",
    ],
)
def test_a_value_that_is_not_a_split_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="checkout=control:50,treatment:50"):
        ExpectedSplit().convert(text, None, None)


@pytest.mark.parametrize("command", ["reconcile", "tail"])
def test_an_invalid_time_is_a_usage_error(command: str) -> None:
    result = CliRunner().invoke(flagpost, [command, "--since", "yesterday"])
    assert result.exit_code == 2, result.output
    assert "'yesterday' is not a time" in result.output


@pytest.mark.parametrize("command", ["reconcile", "tail"])
def test_without_a_cluster_the_settings_are_refused(command: str) -> None:
    result = CliRunner().invoke(flagpost, [command], env={"FLAGPOST_CONFIG": None})
    assert result.exit_code == 2, result.output
    assert "kafka.bootstrap_servers" in result.stderr
