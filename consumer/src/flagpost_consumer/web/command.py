"""`flagpost web`: the page for people who do not use terminals.

In: the settings. Out: a served page until SIGTERM or SIGINT; exit code 0, or 1 if the address cannot be used.
"""

from __future__ import annotations

import sys

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.settings import Needs
from flagpost_consumer.web.heap import keep_heap_small


@click.command("web")
@click.pass_obj
def web(load: SettingsLoader) -> None:
    """Serve a read-only web page: the traffic, each flag, and which visitors were lost and why."""
    keep_heap_small()
    settings = load(Needs.KAFKA | Needs.WEB)
    import uvloop  # noqa: PLC0415 - these imports take most of a second; help and wrong settings do not need them

    from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin  # noqa: PLC0415
    from flagpost_consumer.web.program import serve  # noqa: PLC0415
    from flagpost_settings.logs import configure_logging  # noqa: PLC0415

    KafkaAdmin(settings.kafka)  # raises SettingsError if librdkafka refuses the properties
    configure_logging(settings.log, sys.stderr)
    sys.exit(uvloop.run(serve(settings)))
