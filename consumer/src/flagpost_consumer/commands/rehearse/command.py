"""`flagpost rehearse`: what this release, with these settings, would make of the records that the ledger settles.

In: settings, a window. Out: a table or one JSON document on stdout; exit code 0 if nothing would end differently,
else 1. Nothing is sent to Pendo, and nothing is written to Kafka.
"""

from __future__ import annotations

import sys

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.reconcile.asking import window_explained, window_of
from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.rehearse.reading import Reading, Rehearsal, look
from flagpost_consumer.commands.rehearse.report import PLAIN_WIDTH, as_json, show
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import Needs, Settings
from flagpost_consumer.terminal.echo import echo_json
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS
from flagpost_settings.logs import configure_logging


@click.command()
@click.option("--since", type=MOMENT, help=f"Start of the window: {TIME_FORMS}.")
@click.option("--until", type=MOMENT, help="End of the window, in the same forms.")
@click.option("--json", "prints_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def rehearse(
    settings_for: SettingsLoader, since: int | None, until: int | None, *, prints_json: bool
) -> None:
    """Show which past deliveries would end differently with this release and these settings.

    Nothing is sent to Pendo, and nothing is written to Kafka. Exit code 0 if none would, else 1.
    """
    settings = settings_for(Needs.KAFKA)
    window = window_of(since, until)
    configure_logging(settings.log, sys.stderr)  # decoding records may log
    found = _rehearse(settings, window)
    if prints_json:
        echo_json(as_json(found))
    else:
        show(found, Terminal(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False))
    raise SystemExit(1 if found.differences.different else 0)


def _rehearse(settings: Settings, window: Window) -> Rehearsal:
    with window_explained(), TopicReader(settings.kafka) as reader:
        plan = look(reader, settings, window)
        return Reading(reader, settings, window).run(plan)
