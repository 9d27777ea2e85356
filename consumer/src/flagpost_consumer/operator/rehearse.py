"""`flagpost rehearse`: what this release, with these settings, would make of what the ledger tells of.

In: settings, a window. Out: a table or one JSON document on stdout; exit code 0 if nothing would end otherwise, else
1. Nothing is sent to Pendo, and nothing is written to Kafka.
"""

from __future__ import annotations

import sys

import click

from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.reconciliation.asking import window_explained, window_of
from flagpost_consumer.operator.reconciliation.extent import Window
from flagpost_consumer.operator.rehearsal.reading import Reading, Rehearsal, look
from flagpost_consumer.operator.rehearsal.report import PLAIN_WIDTH, as_json, show
from flagpost_consumer.operator.rich_terminal import Terminal
from flagpost_consumer.operator.terminal import echo_json
from flagpost_consumer.operator.times import MOMENT
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import Needs, Settings
from flagpost_settings.logs import configure_logging


@click.command()
@click.option("--since", type=MOMENT, help="Where the window begins: 10m, 2h, 7d ago, or RFC 3339.")
@click.option("--until", type=MOMENT, help="Where it ends, in the same forms.")
@click.option("--json", "prints_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def rehearse(
    settings_for: SettingsLoader, since: int | None, until: int | None, *, prints_json: bool
) -> None:
    """Tell what would end differently from what the ledger says, with this release and these settings.

    Exit code 0 if nothing would.
    """
    settings = settings_for(Needs.KAFKA)
    window = window_of(since, until)
    configure_logging(settings.log, sys.stderr)  # what decodes records logs
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
