"""The command line of `flagpost import`, without Kafka: options, output and exit codes."""

from __future__ import annotations

import io
import json
import stat
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.imports.reporting import SHOWN_ON_TERMINAL, StderrReport
from flagpost_consumer.commands.imports.rows import Refusal
from flagpost_consumer.commands.sources import kafka_admin
from flagpost_consumer.terminal import progress

ROWS = "visitor_id,age:integer\nv1,42\nv2,forty\n,3\nv4,4\n"


def run(*arguments: str | Path, text: str | bytes | None = None, **environ: str) -> Result:
    result = CliRunner().invoke(
        flagpost, ["import", *map(str, arguments)], input=text, env={"FLAGPOST_CONFIG": None, **environ}
    )
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    return result


def dry_run(text: str | bytes, *arguments: str | Path) -> Result:
    return run("-", "--format", "csv", "--type", "visitor", "--dry-run", *arguments, text=text)


def test_refused_rows_are_named_and_the_others_counted() -> None:
    result = dry_run(ROWS)
    assert result.exit_code == 1, result.output
    assert result.stdout == "4 rows: 2 would be imported, 2 refused\n"
    assert result.stderr == (
        "line 3, column age: is not a 64-bit integer; write digits only, such as 42\n"
        "line 4, column visitor_id: is empty; every row needs it\n"
    )


def test_a_good_file_ends_with_0() -> None:
    result = dry_run("visitor_id,plan\nv1,gold\n")
    assert (result.exit_code, result.stderr) == (0, "")


def test_json_is_one_document_with_every_refused_row() -> None:
    result = dry_run(ROWS, "--json")
    assert result.exit_code == 1, result.output
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "rows": 4,
        "imported": 2,
        "refused": [
            {
                "line": 3,
                "column": "age",
                "problem": "is not a 64-bit integer; write digits only, such as 42",
            },
            {"line": 4, "column": "visitor_id", "problem": "is empty; every row needs it"},
        ],
        "complete": True,
        "dry_run": True,
        "missing_fields": None,
    }


def test_json_of_a_good_file() -> None:
    document = json.loads(dry_run("visitor_id,plan\nv1,gold\n", "--json").stdout)
    assert document == {
        "rows": 1,
        "imported": 1,
        "refused": [],
        "complete": True,
        "dry_run": True,
        "missing_fields": None,
    }


def test_no_value_is_shown() -> None:
    text = 'visitor_id,age:integer\nsecret-1,secret-2\n secret-3,4\nsecret-4,5,secret-5\n"secret-6"x,7\n'
    for options in ([], ["--json"]):
        result = dry_run(text, *options)
        assert "4 rows" in result.stdout or '"rows":4' in result.stdout
        assert "secret" not in result.output + result.stderr


def test_refused_rows_are_written_to_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "refused.jsonl"
    result = dry_run(ROWS.encode() + b"v5,\xff\n", "--refused", path)
    assert result.exit_code == 1, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["line"], row["column"], row["row"]) for row in rows] == [
        (3, "age", "v2,forty\n"),
        (4, "visitor_id", ",3\n"),
        (6, "age", "v5,\ufffd\n"),
    ]
    assert all(row["problem"] for row in rows)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_refused_rows_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    result = dry_run(ROWS, "--refused", tmp_path / "no such folder" / "refused.jsonl")
    assert result.exit_code == 1, result.output
    assert "the file of --refused cannot be written: No such file or directory" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_file_of_refused_rows_is_reported() -> None:
    result = dry_run(ROWS, "--refused", "/dev/full")
    assert result.exit_code == 1, result.output
    assert "the file of --refused cannot be written: No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "id,a\nv1,x\n"),
        ("rows.tsv", "id\ta\nv1\tx\n"),
        ("ROWS.CSV", "id;a\nv1;x\n"),
        ("rows.jsonl", '{"id":"v1","a":"x"}\n'),
        ("rows.ndjson", '{"id":"v1","a":"x"}\n'),
        ("rows.2026.jsonl", '{"id":"v1","a":"x"}\n'),
    ],
)
def test_the_format_is_chosen_by_the_name(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    result = run(path, "--type", "visitor", "--dry-run")
    assert result.stdout == "1 rows: 1 would be imported, 0 refused\n", result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["-", "--type", "visitor"],
            "the format of standard input is not known from its name; give --format",
        ),
        (["-", "--format", "csv"], "Missing option '--type'"),
        (["rows.csv", "--type", "person"], "'person' is not one of 'visitor', 'account', 'track'"),
        (["missing.csv", "--type", "visitor"], "'missing.csv' does not exist"),
        (["-", "--format", "jsonl", "--type", "visitor", "--delimiter", ";"], "are only for CSV"),
        (["-", "--format", "jsonl", "--type", "visitor", "--column", "a:integer"], "are only for CSV"),
        (["-", "--format", "csv", "--type", "account", "--column", "seats:int"], "such as seats:integer"),
        (["-", "--format", "csv", "--type", "account", "--column", "seats"], "give NAME:TYPE"),
        (["-", "--format", "jsonl", "--type", "visitor", "--empty", "clear"], "are only for CSV"),
        (["-", "--format", "csv", "--type", "track", "--empty", "clear"], "are only for metadata"),
        (["-", "--format", "csv", "--type", "track", "--group", "agent"], "are only for metadata"),
        (["-", "--format", "csv", "--type", "visitor", "--delimiter", ";;"], "give one character, or tab"),
        (["-", "--format", "csv", "--type", "visitor", "--delimiter", '"'], "give one character, or tab"),
        (["rows.csv", "--type", "visitor", "--refused", "./rows.csv"], "give another name"),
        (["rows.csv", "--type", "visitor", "--wait", "--dry-run"], "--dry-run writes nothing"),
        (["rows.csv", "--type", "visitor", "--report", "ends.csv"], "needs --wait"),
        (["rows.csv", "--type", "visitor", "--wait", "--report", "ends.txt"], "must end in .csv, .jsonl"),
        (["rows.csv", "--type", "visitor", "--wait", "--report", "./rows.csv"], "give another name"),
        (["rows.csv", "--type", "visitor", "--wait", "--wait-seconds", "0"], "--wait-seconds"),
    ],
)
def test_options_that_contradict_are_exit_code_2(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("id,a\nv1,x\n")
    result = run(*arguments, text="", FLAGPOST_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert Path("rows.csv").read_text() == "id,a\nv1,x\n"


@pytest.mark.parametrize("given", ["tab", "\\t", "\t"])
def test_a_tab_can_be_named(given: str) -> None:
    result = dry_run("id\ta,b,c\nv1\tx\n", "--delimiter", given)
    assert (result.exit_code, result.stderr) == (0, "")


def test_columns_can_be_typed_apart_from_the_header() -> None:
    result = dry_run("visitorId,age,plan\nv1,forty,gold\n", "--column", "age:integer")
    assert "line 2, column age: is not a 64-bit integer" in result.stderr


def test_a_header_that_cannot_be_used_is_one_line_and_nothing_on_stdout() -> None:
    result = dry_run("name,plan\nv1,gold\n", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: standard input: visitor_id is not among the columns")
    assert len(result.stderr.splitlines()) == 1


def test_no_kafka_is_one_line_and_nothing_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", 0.5)
    arguments = ["-", "--format", "csv", "--type", "visitor", "--json"]
    result = run(*arguments, text=ROWS, FLAGPOST_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "Error: Kafka: 127.0.0.1:1" in result.stderr


def test_kafka_must_be_set_except_for_a_dry_run() -> None:
    result = run("-", "--format", "csv", "--type", "visitor", text=ROWS)
    assert result.exit_code == 2, result.output
    assert "kafka.bootstrap_servers: is required" in result.stderr


def test_a_terminal_shows_only_the_first_refused_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    report = StderrReport(terminal)
    for line in range(2, 2000):
        report.refuse(Refusal(line, "age", "is not a number"))
    lines = terminal.getvalue().splitlines()
    assert len(lines) == SHOWN_ON_TERMINAL + 1
    assert lines[0] == "line 2, column age: is not a number"
    assert "--refused FILE" in lines[-1]


def test_without_a_terminal_every_refused_row_is_named() -> None:
    result = dry_run("visitor_id,age:integer\n" + "v1,x\n" * 3000)
    assert result.stderr.count("column age") == 3000


def test_a_columns_name_cannot_write_to_the_terminal() -> None:
    result = dry_run("visitor_id,\x1b[31mred:integer\nv1,x\n")
    assert "line 2, column [31mred: is not a 64-bit integer" in result.stderr
    assert "\x1b" not in result.stderr


def test_progress_is_shown_in_lines_if_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    result = dry_run("visitor_id,plan\n" + "v1,gold\n" * 1000)
    assert result.stderr == "standard input imported: 0.0 MB\n" * 2


def test_progress_knows_the_size_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    path = tmp_path / "rows.csv"
    path.write_text("visitor_id,plan\n" + "v1,gold\n" * 500 + f"v1,{'x' * 50_000}\n" * 2)
    result = run(path, "--type", "visitor", "--dry-run")
    assert result.stderr == f"{path} imported: 0.1 of 0.1 MB\n"


def test_a_terminal_has_a_bar_whatever_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "{rows}[bold].csv"
    path.write_text("visitor_id,plan\n" + "v1,gold\n" * 1000)
    result = run(path, "--type", "visitor", "--dry-run", FORCE_COLOR="1", COLUMNS="250")
    assert result.stdout == "1,000 rows: 1,000 would be imported, 0 refused\n"
    assert f"{path} imported" in result.stderr
    assert "8.0/8.0 kB" in result.stderr


def test_refused_rows_of_json_lines_carry_their_text(tmp_path: Path) -> None:
    path = tmp_path / "refused.jsonl"
    row = b'{"visitor_id":"","plan":"gold"}\n'
    run("-", "--format", "jsonl", "--type", "visitor", "--dry-run", "--refused", path, text=row)
    (refused,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert refused["row"] == row.decode()


@pytest.mark.parametrize(("age_ms", "said"), [(1_700_000, False), (1_900_000, True)])
def test_events_that_a_second_run_may_deliver_again_are_reported(age_ms: int, said: bool) -> None:
    row = f"visitor_id,event,timestamp\nv1,e,{time.time_ns() // 1_000_000 - age_ms}\n"
    result = run("-", "--format", "csv", "--type", "track", "--dry-run", text=row)
    assert result.exit_code == 0, result.output
    assert ("more than 1,800 s ago (dedupe.ttl_seconds)" in result.stderr) is said
