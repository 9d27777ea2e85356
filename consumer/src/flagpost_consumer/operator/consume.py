"""`flagpost consume`: the service.

In: the settings. Out: an exit code: 0 after a clean drain, 1 when requests in flight had to be abandoned, on a
second signal, or on a failure.
"""

from __future__ import annotations

import sys

import click
import uvloop

from flagpost_consumer.app import serve
from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.kafka_admin import KafkaAdmin
from flagpost_consumer.settings import Needs
from flagpost_settings.logs import configure_logging


@click.command("consume")
@click.pass_obj
def consume(load: SettingsLoader) -> None:
    """Deliver events to Pendo until SIGTERM or SIGINT; the first signal drains, a second one ends at once."""
    settings = load(Needs.KAFKA | Needs.PENDO)
    KafkaAdmin(settings.kafka)  # raises SettingsError where librdkafka refuses the properties
    configure_logging(settings.log, sys.stderr)
    sys.exit(uvloop.run(serve(settings)))
