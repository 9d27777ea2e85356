"""Files of settlements: their contents, that they appear only when complete, and SQL queries on them."""

from __future__ import annotations

import csv
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from click.testing import CliRunner, Result

from flagpost_consumer.commands.analyst.database import Database
from flagpost_consumer.commands.analyst.files import (
    WRITERS,
    whole_or_not,
    write_csv,
    write_json_lines,
    write_parquet,
)
from flagpost_consumer.commands.analyst.results import print_table
from flagpost_consumer.commands.analyst.rows import COLUMNS, Row
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.core.outcomes import Reason

SETTLED_MS = 1_800_000_000_123


def row(offset: int = 0, **fields: object) -> Row:
    """A settlement as a row."""
    values: dict[str, object] = {
        **dict.fromkeys(COLUMNS),
        "partition": 3,
        "settled_at": SETTLED_MS,
        "offset": offset,
        "kind": "track",
        "outcome": "delivered",
        "reason": "ok",
        "attempts": 1,
        "unseen": 0,
    }
    assert fields.keys() <= set(COLUMNS)
    return tuple({**values, **fields}.values())


def decided(offset: int, visitor: str, reason: str = "ok", **fields: object) -> Row:
    """A row: the track delivery of a visitor's decision, settled for a reason."""
    (outcome,) = [each.outcome.value for each in Reason if each == reason]
    given = {"flag_key": "f", "variation_key": "a", "visitor_id": visitor, **fields}
    return row(offset, outcome=outcome, reason=reason, **given)


def ask(query: str, *rows: Row) -> list[tuple[Any, ...]]:
    """Load rows into a database; returns the result of a query."""
    with Database() as database:
        write_json_lines(database.scratch, rows)
        database.load(database.scratch)
        database.lock()
        return database.connection.execute(query).fetchall()


def of_file(query: str, file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(flagpost, ["sql", query, "--from", str(file), *arguments])


# Files.


def test_json_lines_hold_a_settlement_as_tail_prints_it(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_json_lines(file, [row(7, visitor_id="=v", occurred_at=5)])
    (line,) = map(orjson.loads, file.read_bytes().splitlines())
    assert list(line) == list(COLUMNS)
    assert (line["offset"], line["settled_at"], line["visitor_id"]) == (7, SETTLED_MS, "=v")


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    ids = ["=1+1", "+49", "-v", "@sum", "\tx", "\rx", "plain", 'a"b,c\nd']
    write_csv(file, [row(number, visitor_id=visitor) for number, visitor in enumerate(ids)])
    with file.open(newline="") as lines:
        read = list(csv.DictReader(lines))
    assert [each["visitor_id"] for each in read] == [*(f"'{v}" for v in ids[:6]), *ids[6:]]
    assert read[0]["settled_at"] == "2027-01-15T08:00:00.123Z"
    assert read[0]["account_id"] == ""


def test_a_parquet_file_has_types_and_texts_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    odd = "=\x00\u202e\n\"'"
    write_parquet(file, [row(7, visitor_id=odd, occurred_at=1 << 62), row(8)])
    names = 'settled_at, "offset", visitor_id, occurred_at, account_id'
    relation = duckdb.connect().read_parquet(str(file))
    assert relation.project("settled_at").types == ["TIMESTAMP WITH TIME ZONE"]
    (first, second) = relation.project(names).order('"offset"').fetchall()
    assert first[0].timestamp() * 1000 == SETTLED_MS
    assert first[1:] == (7, odd, None, None)
    assert second[1:] == (8, None, None, None)


@pytest.mark.parametrize("ending", WRITERS)
def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"a{ending}"
    target.write_text("what was there before")

    def breaking() -> Iterator[Row]:
        yield row()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_or_not(target) as place:
        WRITERS[ending](place, breaking())
    assert [each.name for each in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "what was there before"


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_replaces_another_only_when_it_is_complete(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"a{ending}"
    target.write_text("what was there before")
    with whole_or_not(target) as place:
        WRITERS[ending](place, [row()])
        assert target.read_text() == "what was there before"
    assert [each.name for each in tmp_path.iterdir()] == [target.name]
    assert b"delivered" in target.read_bytes()
    assert stat.S_ISREG(target.stat().st_mode)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600, (
        "it names visitors; before the fix, everybody could read it"
    )


@pytest.mark.parametrize("target", ["a.xlsx", "nowhere/a.csv", "."])
def test_a_target_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(flagpost, ["export", "--to", target])
    assert done.exit_code == 2, done.output
    assert target.partition("/")[0] in done.output


def test_without_duckdb_parquet_and_sql_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for name in ("database", "sql"):
        monkeypatch.delitem(sys.modules, f"flagpost_consumer.commands.analyst.{name}", raising=False)
    settings = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    for arguments, name in (
        (["sql", "select 1"], "sql"),
        (["export", "--to", "a.parquet"], "export --to FILE.parquet"),
    ):
        done = CliRunner().invoke(flagpost, arguments, env=settings)
        assert (done.exit_code, done.output) == (
            1,
            f"Error: flagpost {name} needs duckdb: pip install 'flagpost-consumer[analyst]'\n",
        )


# SQL.


def test_a_delivery_that_was_settled_twice_counts_once_with_its_best_outcome() -> None:
    rows = [decided(1, "v", "rejected"), decided(1, "v"), decided(1, "v"), decided(2, "v", "dedupe")]
    assert ask("select count(*) from settlements", *rows) == [(4,)]
    assert ask('select "offset", outcome from deliveries order by 1', *rows) == [
        (1, "delivered"),
        (2, "duplicate"),
    ]


def test_visitors_are_lost_for_the_reason_that_was_nearest_to_delivery() -> None:
    rows = [
        decided(1, "good", "no_consent"),
        decided(2, "good"),
        decided(3, "lost", "no_consent"),
        decided(4, "lost", "rejected"),
        decided(5, "lost", "flag_filtered"),
        decided(6, "other", "no_consent", variation_key=None),
        row(7, kind="visitor_metadata", flag_key="f", variation_key="a", visitor_id="not counted"),
        row(8, visitor_id="no flag"),
    ]
    lost = "select visitor_id, decisions, is_delivered, lost_reason from visitors order by 1"
    assert ask(lost, *rows) == [
        ("good", 2, True, None),
        ("lost", 3, False, "rejected"),
        ("other", 1, False, "no_consent"),
    ]
    assert ask("select * from flags", *rows) == [
        ("f", "a", 2, 1, 1, 5, 1, 0, 3, 1),
        ("f", None, 1, 0, 1, 1, 0, 0, 1, 0),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_text('/etc/passwd')",
        "select * from read_csv('http://127.0.0.1:9/a.csv')",
        "select * from '/etc/passwd'",
        "copy settlements to '/tmp/flagpost-leak.csv'",
        "attach '/tmp/flagpost-leak.db'",
        "export database '/tmp/flagpost-leak'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma profiling_output = '/tmp/flagpost-leak'",
        "select * from COLUMNS",
        "select getenv('HOME')",
    ],
)
def test_a_query_reaches_no_file_no_network_and_no_variable(query: str) -> None:
    with pytest.raises(duckdb.Error):
        ask(query, row())


@pytest.mark.thorough
def test_a_query_that_does_not_fit_into_memory_is_spilled_although_it_may_not_use_files() -> None:
    sorted_rows = """
        select sum(place * a) from (
            select row_number() over (order by hash(a, b)) as place, a
            from range(2000) x(a), range(2000) y(b)
        )
    """
    with Database("100MB") as database:
        write_json_lines(database.scratch, [row()])
        database.load(database.scratch)
        database.lock()
        ((found,),) = database.connection.execute(sorted_rows).fetchall()
    assert found > 0


def test_results_are_a_table_csv_or_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_parquet(file, [row(1, visitor_id="=v\x1b[31m"), row(2)])
    query = 'select "offset", visitor_id, settled_at, [1, 2.5] as many from settlements order by 1'
    table = of_file(query, file)
    assert table.exit_code == 0, table.output
    assert "NULL" in table.output
    assert "\x1b" not in table.output
    read = list(csv.reader(of_file(query, file, "--csv").output.splitlines()))
    assert read[0] == ["offset", "visitor_id", "settled_at", "many"]
    assert read[1][:3] == ["1", "'=v\\x1b[31m", "2027-01-15T08:00:00.123000Z"]
    assert read[2][:2] == ["2", ""]
    first, _ = map(orjson.loads, of_file(query, file, "--json").output.splitlines())
    assert first["visitor_id"] == "=v\x1b[31m"
    assert first["many"] == [1.0, 2.5]


@pytest.mark.parametrize(("columns", "is_table"), [(200, True), (40, False)])
def test_a_table_too_wide_for_the_terminal_is_shown_row_by_row(
    columns: int, is_table: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(["name", "long"], iter([("v1", "x" * 60), (None, "\x1b[2J")]))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert ("  name v1" in lines) is not is_table
    assert any("x" * 60 in line for line in lines)
    assert any("NULL" in line for line in lines)
    assert any(r"\x1b[2J" in line for line in lines)


def test_every_duckdb_type_can_be_printed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_json_lines(file, [])
    query = (
        "select 170141183460469231731687303715884105727::hugeint a, 'x'::blob b, 'nan'::double c,"
        " date '2020-01-02' d, time '10:00' e, interval 90 seconds f, {'k': [1, null]} g, true h,"
        " 1.5::decimal(3, 1) i, uuid() j"
    )
    for form in ("--json", "--csv"):
        assert of_file(query, file, form).exit_code == 0
    (told,) = map(orjson.loads, of_file(query, file, "--json").output.splitlines())
    assert told["a"] == "170141183460469231731687303715884105727"
    assert [told[name] for name in "bcdefghi"] == [
        "78",
        None,
        "2020-01-02",
        "10:00:00",
        90.0,
        {"k": [1, None]},
        True,
        1.5,
    ]


def test_more_rows_than_a_table_shows_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_json_lines(file, [])
    done = of_file("select * from range(1001)", file)
    assert "Only the first 1,000 rows are shown" in done.stderr
    assert len(of_file("select * from range(1001)", file, "--csv").output.splitlines()) == 1002


def test_a_query_that_fails_is_reported_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_json_lines(file, [])
    done = of_file("select nonsense from settlements", file)
    assert done.exit_code == 1, done.output
    assert "nonsense" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("query", ["", " -- nothing"])
def test_an_empty_query_is_reported(tmp_path: Path, query: str) -> None:
    file = tmp_path / "a.jsonl"
    write_json_lines(file, [])
    assert "the query is empty" in of_file(query, file).stderr


def test_a_query_may_read_files_with_the_option_allow_files(tmp_path: Path) -> None:
    file, other = tmp_path / "a.jsonl", tmp_path / "other.csv"
    write_json_lines(file, [])
    other.write_text("a,b\n1,2\n")
    query = f"from '{other}' select b"
    assert of_file(query, file, "--json").exit_code == 1
    assert orjson.loads(of_file(query, file, "--json", "--allow-files").stdout) == {"b": 2}


@pytest.mark.parametrize("line", ['{"flag":"checkout","visitor":"v"}', "[]", "7"])
def test_a_file_of_other_json_lines_is_no_export(tmp_path: Path, line: str) -> None:
    """Before the fix, it was a table of nulls or an empty one, with exit code 0."""
    (tmp_path / "g.jsonl").write_text(f"{line}\n")
    done = of_file("select count(*) from settlements", tmp_path / "g.jsonl")
    assert done.exit_code == 1, done.output
    assert "g.jsonl is not a file that flagpost export wrote: it has no column partition, " in done.stderr
    (tmp_path / "empty.jsonl").write_text("")
    assert of_file("select 1", tmp_path / "empty.jsonl").exit_code == 0


def test_a_parquet_file_of_other_columns_is_no_export(tmp_path: Path) -> None:
    duckdb.sql(f"copy (select 1 as flag) to '{tmp_path}/g.parquet' (format parquet)")
    done = of_file("select 1", tmp_path / "g.parquet")
    assert done.exit_code == 1, done.output
    assert "it has no column partition, " in done.stderr


def test_a_file_that_export_did_not_write_is_reported(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl"):
        (tmp_path / name).write_text("no such file\n")
        done = of_file("select 1", tmp_path / name)
        assert done.exit_code == 1, done.output
        assert "is not a file that flagpost export wrote" in done.stderr
    (tmp_path / "a.csv").write_text("")
    assert of_file("select 1", tmp_path / "a.csv").exit_code == 2
