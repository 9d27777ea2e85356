"""`flagpost web`: the page for people who do not use terminals.

In: the settings. Out: a served page until SIGTERM or SIGINT; exit code 0, or 1 where the address cannot be had.
"""

from __future__ import annotations

import sys

import click
import uvloop

from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.kafka_admin import KafkaAdmin
from flagpost_consumer.settings import Needs
from flagpost_consumer.web.program import serve
from flagpost_settings.logs import configure_logging


@click.command("web")
@click.pass_obj
def web(load: SettingsLoader) -> None:
    """Serve a page that shows what flows, each flag, and who was lost and why. It only reads."""
    settings = load(Needs.KAFKA | Needs.WEB)
    KafkaAdmin(settings.kafka)  # raises SettingsError where librdkafka refuses the properties
    configure_logging(settings.log, sys.stderr)
    sys.exit(uvloop.run(serve(settings)))
