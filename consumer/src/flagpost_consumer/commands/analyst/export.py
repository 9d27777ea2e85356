"""`flagpost export`: settlements as a file, for programs that read tables.

In: settings, a window, which settlements. Out: a Parquet, CSV or JSON lines file, complete or not at all; the number
of its rows, on stderr.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from flagpost_consumer.commands.analyst.files import WRITERS, whole_or_not
from flagpost_consumer.commands.analyst.rows import LedgerRows, Row, Wanted
from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.reconcile.asking import window_explained, window_of
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.settings import Needs
from flagpost_consumer.terminal.echo import echo
from flagpost_consumer.terminal.extras import extra_missing
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS


class TargetFile(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """A file in an existing directory, whose name tells its form."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file; anything else is a usage error."""
        target = Path(str(value))
        if target.suffix.lower() not in WRITERS:
            self.fail(f"{value} must end in {', '.join(WRITERS)}: the ending decides the format", param, ctx)
        if target.is_dir():
            self.fail(f"{value} is a directory", param, ctx)
        if not target.parent.is_dir():
            self.fail(f"the directory {target.parent} does not exist", param, ctx)
        return target


@click.command()
@click.option(
    "--to", "target", type=TargetFile(), required=True, help="The file: FILE.parquet, FILE.csv or FILE.jsonl."
)
@click.option("--since", type=MOMENT, help=f"Only settlements since: {TIME_FORMS}.")
@click.option("--until", type=MOMENT, help="Only settlements before, in the same forms.")
@click.option("--flag", "flags", multiple=True, help="Only this flag. May be repeated.")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([outcome.value for outcome in Outcome]),
    multiple=True,
    help="Only this outcome. May be repeated.",
)
@click.pass_obj
def export(
    settings_for: SettingsLoader,
    target: Path,
    since: int | None,
    until: int | None,
    flags: tuple[str, ...],
    outcomes: tuple[str, ...],
) -> None:
    """Write settlements to a file, one row for each."""
    kafka = settings_for(Needs.KAFKA).kafka
    window, wanted = window_of(since, until), Wanted(frozenset(flags), frozenset(outcomes))
    _check_extra(target)
    try:
        with window_explained(), TopicReader(kafka) as reader, whole_or_not(target) as place:
            rows = LedgerRows(reader, kafka, window, wanted)
            counted = _Counted(rows)
            WRITERS[target.suffix.lower()](place, counted)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror or error}") from None
    echo(f"{counted.count:,} settlements written to {target}", err=True)
    if rows.damaged:
        echo(f"{rows.damaged:,} damaged records of the ledger are left out", err=True)


def _check_extra(target: Path) -> None:
    """Raises click.ClickException if the form needs an extra that is not installed."""
    if target.suffix.lower() != ".parquet":
        return
    try:
        import duckdb  # noqa: F401, PLC0415 - only this form needs it
    except ModuleNotFoundError as error:
        raise extra_missing("export --to FILE.parquet", error, "analyst") from None


class _Counted:
    """Counts rows as they pass through."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row
