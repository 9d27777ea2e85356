"""`flagpost sql`: SQL over the settlements, in this process.

In: a query; settings and a window, or a file that `flagpost export` wrote. Out: a table, CSV or JSON lines on stdout.
The query can access no file and no network unless an option allows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import duckdb

from flagpost_consumer.commands.analyst.database import Database, NotAnExport
from flagpost_consumer.commands.analyst.files import write_json_lines
from flagpost_consumer.commands.analyst.results import print_csv, print_json, print_table
from flagpost_consumer.commands.analyst.rows import LedgerRows, Row, Wanted
from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.reconcile.asking import window_explained, window_of
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.settings import Needs
from flagpost_consumer.terminal.echo import echo
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS

MAX_ERROR_CHARACTERS = 1_000
BATCH_ROWS = 1_000
FORMS = (".parquet", ".jsonl")


@click.command()
@click.argument("query")
@click.option("--since", type=MOMENT, help=f"Only settlements since: {TIME_FORMS}.")
@click.option("--until", type=MOMENT, help="Only settlements before, in the same forms.")
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Query a file that `flagpost export` wrote (.parquet, .jsonl) instead of Kafka.",
)
@click.option("--allow-files", is_flag=True, help="Let the query read and write files and use the network.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def sql(  # noqa: PLR0913 - one for each option
    settings_for: SettingsLoader,
    query: str,
    since: int | None,
    until: int | None,
    file: Path | None,
    *,
    allow_files: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Query settlements with DuckDB's SQL; a QUERY of `-` is read from stdin.

    Tables: settlements (one row for each, as in the ledger), deliveries (one row for each delivery: the settlement
    that counts), visitors (one row for each visitor of a flag and variation), flags (one row for each flag and
    variation).
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot be combined")
    if file is not None and file.suffix.lower() not in FORMS:
        raise click.UsageError(f"--from reads {' and '.join(FORMS)}; export to one of them")
    if file is not None and (since is not None or until is not None):
        raise click.UsageError(
            "--since and --until cannot be combined with --from; filter with WHERE settled_at instead"
        )
    text = sys.stdin.read() if query == "-" else query
    with Database() as database:
        _load(database, settings_for, file, since, until)
        if not allow_files:
            database.lock()
        try:
            if not database.connection.extract_statements(text):
                raise click.UsageError("the query is empty")
            _print(database.connection.execute(text), as_csv=as_csv, as_json=as_json)
        except duckdb.Error as error:
            raise click.ClickException(legible(str(error), MAX_ERROR_CHARACTERS)) from None


def _print(answer: duckdb.DuckDBPyConnection, *, as_csv: bool, as_json: bool) -> None:
    names = [column[0] for column in answer.description]
    if as_json:
        print_json(names, _rows(answer))
    elif as_csv:
        print_csv(names, _rows(answer))
    else:
        print_table(names, _rows(answer))


def _load(
    database: Database, settings_for: SettingsLoader, file: Path | None, since: int | None, until: int | None
) -> None:
    if file is None:
        file = database.scratch
        _read(file, settings_for, since, until)
    try:
        database.load(file)
    except (duckdb.Error, NotAnExport) as error:
        why = legible(str(error), MAX_ERROR_CHARACTERS)
        raise click.ClickException(f"{file} is not a file that flagpost export wrote: {why}") from None


def _read(file: Path, settings_for: SettingsLoader, since: int | None, until: int | None) -> None:
    kafka = settings_for(Needs.KAFKA).kafka
    try:
        with window_explained(), TopicReader(kafka) as reader:
            rows = LedgerRows(reader, kafka, window_of(since, until), Wanted())
            write_json_lines(file, rows)
    except OSError as error:
        raise click.ClickException(
            f"settlements cannot be written to {file.parent}: {error.strerror}; set TMPDIR to another directory"
        ) from None
    if rows.damaged:
        echo(f"{rows.damaged:,} damaged records of the ledger are left out", err=True)


def _rows(answer: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    while batch := answer.fetchmany(BATCH_ROWS):
        yield from batch
