"""`flagpost consume`: the service.

In: the settings. Out: an exit code: 0 after a clean drain, 1 when requests in flight had to be abandoned, on a
second signal, or on a failure.
"""

from __future__ import annotations

import sys

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.settings import Needs


@click.command("consume")
@click.pass_obj
def consume(load: SettingsLoader) -> None:
    """Deliver events to Pendo until SIGTERM or SIGINT.

    The first signal stops intake and lets what is in flight finish; a second one stops at once.
    """
    settings = load(Needs.KAFKA | Needs.PENDO)
    import uvloop  # noqa: PLC0415 - all these take most of a second; help, and settings that are wrong, do without

    from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin  # noqa: PLC0415
    from flagpost_consumer.service.process import serve  # noqa: PLC0415
    from flagpost_settings.logs import configure_logging  # noqa: PLC0415

    KafkaAdmin(settings.kafka)  # raises SettingsError if librdkafka refuses the properties
    configure_logging(settings.log, sys.stderr)
    sys.exit(uvloop.run(serve(settings)))
