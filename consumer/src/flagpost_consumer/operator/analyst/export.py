"""`flagpost export`: settlements as a file, for whatever reads tables.

In: settings, a window, which settlements. Out: a Parquet, CSV or JSON lines file, whole or not at all; how many rows
it has, on stderr.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.operator.analyst.files import WRITERS, whole_or_not
from flagpost_consumer.operator.analyst.rows import LedgerRows, Row, Wanted
from flagpost_consumer.operator.cli import SettingsLoader, extra_missing
from flagpost_consumer.operator.reconciliation.asking import window_explained, window_of
from flagpost_consumer.operator.terminal import echo
from flagpost_consumer.operator.times import MOMENT
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import Needs


class TargetFile(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """A file whose name says its form, in a directory that exists."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file; what can be no such file is a usage error."""
        target = Path(str(value))
        if target.suffix.lower() not in WRITERS:
            self.fail(f"{value} should end in {', '.join(WRITERS)}: the ending says the form", param, ctx)
        if target.is_dir():
            self.fail(f"{value} is a directory", param, ctx)
        if not target.parent.is_dir():
            self.fail(f"there is no directory {target.parent}", param, ctx)
        return target


@click.command()
@click.option(
    "--to", "target", type=TargetFile(), required=True, help="FILE.parquet, FILE.csv or FILE.jsonl."
)
@click.option("--since", type=MOMENT, help="Only what ended since: 10m, 2h, 7d ago, or RFC 3339.")
@click.option("--until", type=MOMENT, help="Only what ended before, in the same forms.")
@click.option("--flag", "flags", multiple=True, help="Only this flag's. May be repeated.")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([outcome.value for outcome in Outcome]),
    multiple=True,
    help="Only what ended so. May be repeated.",
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
    """Write settlements to a file, a row each."""
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
    """Raises click.ClickException where the form needs an extra that is not installed."""
    if target.suffix.lower() != ".parquet":
        return
    try:
        import duckdb  # noqa: F401, PLC0415 - only this form needs it
    except ModuleNotFoundError as error:
        raise extra_missing("export --to FILE.parquet", error, "analyst") from None


class _Counted:
    """Rows that are counted as they go through."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row
