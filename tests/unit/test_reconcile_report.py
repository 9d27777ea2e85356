"""What `flagpost reconcile` takes and shows."""

from __future__ import annotations

import io

import click
import pytest
from click.testing import CliRunner

from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.operator.cli import flagpost
from flagpost_consumer.operator.reconcile import ExpectedSplit
from flagpost_consumer.operator.reconciliation.counting import Books, Counts, Row, Unexplained
from flagpost_consumer.operator.reconciliation.reading import Reconciliation
from flagpost_consumer.operator.reconciliation.report import Report, show
from flagpost_consumer.operator.rich_terminal import Terminal

ROW: Row = ("checkout", "treatment")


def reconciliation(**found: int) -> Reconciliation:
    books = Books(rows={ROW: Counts(published=12_345, delivered=12_300, dropped=45)})
    books.metadata = Counts(published=3, delivered=3)
    return Reconciliation(1_800_000_000_000, 1_800_000_060_000, books, **found)


def shown(report: Report, width: int = 200) -> list[str]:
    console = Terminal(width=width, file=io.StringIO(), highlight=False)
    show(report, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_table_and_one_sentence() -> None:
    lines = shown(Report(reconciliation(), ()))
    assert lines[0] == "From 2027-01-15 08:00:00Z to 2027-01-15 08:01:00Z"
    assert [line.split() for line in lines[3:7]] == [
        ["checkout", "treatment", "12,345", "12,300", "0", "45", "0", "0", "0", "0", "0"],
        ["(no", "flag)", "0", "0", "0", "0", "0", "0", "0", "0", "0"],
        ["all", "track", "events", "12,345", "12,300", "0", "45", "0", "0", "0", "0", "0"],
        ["metadata", "3", "3", "0", "0", "0", "0", "0", "0", "0"],
    ]
    assert "\n".join(lines[7:]) == (
        "12,348 deliveries were published: 12,303 are delivered, 0 are duplicates, 45 dropped, 0 dead-lettered "
        "(0 of them replayed), 0 pending, 0 unexplained."
    )


@pytest.mark.parametrize("width", [20, 60, 80, 100])
def test_no_number_is_cut_however_narrow_the_terminal_is(width: int) -> None:
    lines = shown(Report(reconciliation(), (), {ROW: 11_111}), width)
    assert any({"12,345", "12,300", "45", "11,111", "-1,189"} <= set(line.split()) for line in lines)


def test_columns_without_a_number_go_where_not_all_fit() -> None:
    assert "duplicate" in "".join(shown(Report(reconciliation(), ()))[:3])
    narrow = "".join(shown(Report(reconciliation(), ()), 80)[:3])
    assert "duplicate" not in narrow
    assert all(title in narrow for title in ("published", "dropped", "pending", "unexplained"))


def test_unexplained_deliveries_are_named_and_so_is_what_to_do() -> None:
    found = reconciliation()
    found.books.rows[ROW].unexplained = 11
    found.books.examples = [Unexplained(2, offset, Kind.TRACK) for offset in range(10)]
    (line,) = (line for line in shown(Report(found, ())) if line.startswith("Unexplained"))
    assert "2/0/track, 2/1/track" in line
    assert "2/9/track, …." in line
    assert 'see docs/reconcile.md, "Unexplained"' in line


def test_what_was_lost_is_in_the_last_sentence() -> None:
    found = reconciliation(lost_offsets=1_234)
    assert not found.adds_up
    assert shown(Report(found, ()))[-1].endswith(
        "0 unexplained; 1,234 offsets were lost before the group read them."
    )


def test_flags_that_only_pendo_has_are_rows_too() -> None:
    document = Report(reconciliation(), (), {ROW: 12_300, ("gone", None): 2}).as_json()
    (ours, pendos) = document["rows"]
    assert ours["pendo"] == {"counted": 12_300, "expected_min": 12_300, "expected_max": 12_300}
    assert (pendos["flag_key"], pendos["variation_key"], pendos["published"]) == ("gone", None, 0)
    assert pendos["pendo"] == {"counted": 2, "expected_min": 0, "expected_max": 0}
    assert document["warnings"][0] == "gone, no variation: Pendo counts 2 where 0 are expected."


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
def test_what_is_no_split_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="checkout=control:50,treatment:50"):
        ExpectedSplit().convert(text, None, None)


@pytest.mark.parametrize("command", ["reconcile", "tail"])
def test_a_time_that_is_none_is_a_usage_error(command: str) -> None:
    result = CliRunner().invoke(flagpost, [command, "--since", "yesterday"])
    assert result.exit_code == 2
    assert "'yesterday' is no time" in result.output


@pytest.mark.parametrize("command", ["reconcile", "tail"])
def test_without_a_cluster_the_settings_are_refused(command: str) -> None:
    result = CliRunner().invoke(flagpost, [command], env={"FLAGPOST_CONFIG": None})
    assert result.exit_code == 2
    assert "kafka.bootstrap_servers" in result.stderr
