"""`flagpost reconcile`: compares what was published with what became of it according to the ledger.

In: settings, a window, the expected splits of flags. Out: text, CSV or one JSON document on stdout; exit code 0 only
if every delivery is explained and nothing was lost. Pendo's own counts and skewed splits are shown with warnings, and
do not change the exit code; requested counts that are not available do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.reconcile.asking import window_explained, window_of
from flagpost_consumer.commands.reconcile.at_pendo import AtPendo
from flagpost_consumer.commands.reconcile.counting import Row
from flagpost_consumer.commands.reconcile.csv_form import csv_text
from flagpost_consumer.commands.reconcile.extent import ExtentFinder, Window
from flagpost_consumer.commands.reconcile.optimizely_files import read_exports
from flagpost_consumer.commands.reconcile.parts import By
from flagpost_consumer.commands.reconcile.reading import Reading, Reconciliation
from flagpost_consumer.commands.reconcile.report import Report
from flagpost_consumer.commands.reconcile.sample_ratio import check_ratios
from flagpost_consumer.commands.reconcile.sentences import PLAIN_WIDTH, show
from flagpost_consumer.commands.reconcile.three_way import ThreeWay
from flagpost_consumer.commands.reconcile.three_way_report import compared, differences_csv, unreadable_told
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.splits.sample_ratio import Shares
from flagpost_consumer.settings import Needs, Settings
from flagpost_consumer.terminal.echo import echo, echo_json, echo_lines
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS

EXPORT = click.Path(exists=True, dir_okay=False, path_type=Path)


class ExpectedSplit(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """`flag=variation:share,variation:share`."""

    name = "flag=variation:share,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Shares]:
        """A flag and its shares; anything else is a usage error."""
        flag, _, listed = str(value).rpartition("=")
        shares = {}
        for part in listed.split(","):
            variation, _, share = part.rpartition(":")
            shares[variation] = self._share(share)
        if not flag or "" in shares or len(shares) < 2 or min(shares.values()) <= 0:
            self.fail(
                f"{value!r} is not a split: give a flag and the shares of two or more variations, each above 0, like "
                "checkout=control:50,treatment:50",
                param,
                ctx,
            )
        return flag, shares

    @staticmethod
    def _share(text: str) -> float:
        return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


@click.command()
@click.option("--since", type=MOMENT, help=f"Start of the window: {TIME_FORMS}.")
@click.option("--until", type=MOMENT, help="End of the window, in the same forms.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: one line for each flag and variation.")
@click.option(
    "--by",
    type=click.Choice([by.value for by in By]),
    help="Split the rows: by reason, day (of the decision, UTC) or source (service, environment, SDK).",
)
@click.option(
    "--pendo", "ask_pendo", is_flag=True, help="Compare with the counts of Pendo's aggregation API."
)
@click.option(
    "--expect",
    "splits",
    type=ExpectedSplit(),
    multiple=True,
    help="The intended split of an experiment's visitors, if no publisher reports it. May be repeated.",
)
@click.option(
    "--optimizely",
    "exports",
    multiple=True,
    type=EXPORT,
    metavar="FILE…",
    help="Compare with Optimizely's export of decisions (Parquet, CSV, JSON lines), visitor by visitor; with --csv, "
    "print one line for each visitor that is on one side only.",
)
@click.argument("more_exports", nargs=-1, type=EXPORT, metavar="")
@click.pass_obj
def reconcile(  # noqa: PLR0913 - one for each option
    settings_for: SettingsLoader,
    since: int | None,
    until: int | None,
    splits: tuple[tuple[str, Shares], ...],
    by: str | None,
    *,
    as_json: bool,
    as_csv: bool,
    exports: tuple[Path, ...],
    more_exports: tuple[Path, ...],
    ask_pendo: bool,
) -> None:
    """Count what was published and how it ended, for each flag and variation, in visitors and in events.

    Exit code 0 if nothing is unexplained and nothing was lost, else 1.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot be combined")
    split_by = None if by is None else By(by)
    settings = settings_for(Needs.KAFKA)
    if more_exports and not exports:
        raise click.UsageError(f"{more_exports[0]}: give files with --optimizely")
    window = window_of(since, until)
    three_way = ThreeWay(read_exports((*exports, *more_exports))) if exports else None
    found = _count(settings, window, split_by, three_way)
    at_pendo = _ask_pendo(settings, found) if ask_pendo else None
    shares = dict(splits)
    ratios = tuple(check_ratios(found.samples, found.splits, shares))
    for flag in sorted(shares.keys() - {ratio.flag_key for ratio in ratios}):
        echo(f"--expect {flag}: not compared, the window has no experiment of this flag", err=True)
    against = None if three_way is None else compared(three_way, found.since_ms, found.until_ms)
    report = Report(found, ratios, at_pendo, split_by, against)
    if as_json:
        echo_json(report.as_json())
    elif as_csv:
        text = csv_text(report) if against is None else differences_csv(against)
        for unreadable in () if against is None else against.unreadable:
            echo(unreadable_told(unreadable), err=True)  # a column has no place for it
        echo_lines(text.removesuffix("\n"))
    else:
        show(report, Terminal(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False))
    raise SystemExit(0 if found.adds_up and (at_pendo is not None or not ask_pendo) else 1)


def _count(settings: Settings, window: Window, by: By | None, three_way: ThreeWay | None) -> Reconciliation:
    with window_explained(), TopicReader(settings.kafka) as reader:
        extent = ExtentFinder(reader, settings).find(window)
        return Reading(reader, settings, window, by, three_way).run(extent)


def _ask_pendo(settings: Settings, found: Reconciliation) -> Mapping[Row, AtPendo] | None:
    """Pendo's counts, read after ours, so that they include what was delivered by then. If they are not available,
    the rest is still shown.
    """
    if found.since_ms is None:
        return {}
    from flagpost_consumer.commands.reconcile.pendo_counts import (  # noqa: PLC0415 - an HTTP client, for few
        PendoNotCounting,
        count_decisions,
        days_of,
    )

    days = days_of(found.since_ms, found.until_ms)
    try:
        return asyncio.run(count_decisions(settings.pendo, settings.decisions.event_name, days))
    except PendoNotCounting as error:
        echo(f"Pendo's counts are not available: {error}", err=True)
        return None
