"""The stand-in as a program: `python -m flagpost_consumer.demo.pendo_stand_in`.

In: options. Out: one line on stdout, `pendo-stand-in http://HOST:PORT`, when it listens; it ends on SIGTERM or
SIGINT.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import click

from flagpost_consumer.demo.pendo_stand_in.config import (
    KEY_HEADER,
    Enforcement,
    Keys,
    MetadataField,
    StandInConfig,
    UnmappedFields,
)
from flagpost_consumer.demo.pendo_stand_in.server import PendoStandIn
from flagpost_consumer.terminal.echo import echo
from flagpost_settings.urls import authority

_DEFAULTS = StandInConfig()


async def _serve(config: StandInConfig, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with PendoStandIn(config, host=host, port=port) as pendo:
        echo(f"pendo-stand-in {pendo.url}")
        await stop.wait()


def _run(config: StandInConfig, host: str, port: int) -> None:
    if sys.platform == "win32":
        asyncio.run(_serve(config, host, port))
    else:
        import uvloop  # noqa: PLC0415  there is none for Windows

        uvloop.run(_serve(config, host, port))


def _field(text: str) -> MetadataField:
    api_name, equals, display_name = text.partition("=")
    if not (api_name and equals and display_name):
        raise click.BadParameter(f"{text!r} is not API_NAME=DISPLAY NAME", param_hint="--visitor-field")
    return MetadataField(api_name, display_name)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0 picks a free one.")
@click.option(
    "--track-secret", default=_DEFAULTS.keys.track_secret, help="The key that track requests must send."
)
@click.option(
    "--integration-key", default=_DEFAULTS.keys.integration_key, help="The key that API requests must send."
)
@click.option("--refused-status", default=_DEFAULTS.keys.refused_status, show_default=True)
@click.option("--key-header", default=KEY_HEADER, show_default=True)
@click.option(
    "--visitor-interval", default=_DEFAULTS.visitor_interval_seconds, show_default=True, help="Seconds."
)
@click.option("--on-pace", default=Enforcement.REFUSE, type=click.Choice(Enforcement), show_default=True)
@click.option("--unmapped-fields", default=UnmappedFields.ACCEPT, type=click.Choice(UnmappedFields))
@click.option("--visitor-field", "fields", multiple=True, metavar="API_NAME=DISPLAY NAME")
@click.option("--latency", default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--keep-bodies/--counters-only", default=True, help="--counters-only bounds memory under load.")
def main(  # noqa: PLR0913  one for each option
    *,
    host: str,
    port: int,
    track_secret: str,
    integration_key: str,
    refused_status: int,
    key_header: str,
    visitor_interval: float,
    on_pace: Enforcement,
    unmapped_fields: UnmappedFields,
    fields: tuple[str, ...],
    latency: float,
    keep_bodies: bool,
) -> None:
    """A stand-in for Pendo that enforces Pendo's rules and keeps a record of what it receives."""
    config = StandInConfig(
        keys=Keys(track_secret, integration_key, refused_status),
        key_header=key_header,
        visitor_interval_seconds=visitor_interval,
        on_pace=on_pace,
        unmapped_fields=unmapped_fields,
        fields=tuple(map(_field, fields)),
        latency_seconds=latency,
        keep_bodies=keep_bodies,
    )
    try:
        _run(config, host, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {authority(host, port)}: {error.strerror}; choose another address"
        ) from error


if __name__ == "__main__":
    main()
