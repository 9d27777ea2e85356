"""`flagpost check`: everything that can be checked before the service runs.

In: settings. Out: a list of checks, for people or as one JSON document; exit code 1 if a check fails. The checks of
different systems run at the same time, each with a time-out, so that all take seconds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable

import click
from rich.table import Table
from rich.text import Text

from flagpost_consumer.adapters.registry.errors import (
    RegistryNotAnswering,
    SchemaDoesNotExist,
    SchemaRefused,
    SchemaUnusable,
)
from flagpost_consumer.commands.check.kafka import KAFKA, check_kafka
from flagpost_consumer.commands.check.partitioning import judge_partitioning
from flagpost_consumer.commands.check.results import Check, Status, fail, hanging, ok
from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.privacy.visitor_argument import VISITOR
from flagpost_consumer.commands.sources.newest_events import Sample, read_sample
from flagpost_consumer.settings import Needs, SchemaRegistrySettings, Settings, SettingsError
from flagpost_consumer.terminal.echo import echo, echo_json, echo_lines
from flagpost_consumer.terminal.rich_console import Terminal

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
REGISTRY = "schema registry"
ANY_SCHEMA_ID = 1
"""It need not exist: the check is whether the registry answers at all."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--send-test-event",
    "test_visitor",
    metavar="VISITOR",
    type=VISITOR,
    help='Test the track secret: send one event "Flagpost check" of this visitor, and print what Pendo answers.',
)
@click.pass_obj
def check(settings_for: SettingsLoader, *, test_visitor: str | None, as_json: bool) -> None:
    """Check settings, Kafka, topics, the schema registry, Pendo's keys and metadata fields.

    Without --send-test-event, no event is sent. If a consumer runs at the admin address of the settings, it is asked
    how Pendo answers.

    Exit code 0 if nothing fails (there may be warnings), 1 if something fails, 2 if the settings cannot be used.
    """
    try:
        settings = settings_for(Needs.KAFKA | Needs.PENDO | Needs.WEBHOOK_TOPIC)
        checks = asyncio.run(run_checks(settings, test_visitor))
    except SettingsError as error:
        if as_json:
            _print_json([fail("settings", str(error), "fix the settings that are named")])
        raise
    if as_json:
        _print_json(checks)
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        _print_lines(checks)
    raise SystemExit(0 if _passes(checks) else 1)


async def run_checks(settings: Settings, test_visitor: str | None = None) -> list[Check]:
    """Run every check; `test_visitor`: the visitor of the test event to send.

    Raises:
        SettingsError: librdkafka refuses kafka.properties.
    """
    from flagpost_consumer.commands.check.pendo import check_pendo  # noqa: PLC0415 - an HTTP client, not for help

    kafka = asyncio.ensure_future(asyncio.to_thread(check_kafka, settings))
    sample = asyncio.ensure_future(_sample(settings, kafka))
    registry, pendo = await asyncio.gather(
        check_registry(settings.kafka.schema_registry), check_pendo(settings, sample, test_visitor)
    )
    partitioning = judge_partitioning(await sample)
    return [ok("settings", "every key and value is accepted"), *await kafka, *partitioning, *registry, *pendo]


async def _sample(settings: Settings, kafka: Awaitable[list[Check]]) -> Sample:
    """The newest events; if Kafka did not answer before, it is not asked again."""
    away = next((found for found in await kafka if found.name == KAFKA and found.status is Status.FAIL), None)
    if away is not None:
        return Sample(unread="Kafka does not answer")
    return await asyncio.to_thread(read_sample, settings)


async def check_registry(registry: SchemaRegistrySettings) -> list[Check]:
    """Ask the registry as the service would, if one is configured."""
    if registry.url is None:
        return []
    from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry  # noqa: PLC0415 - an HTTP client, not for help

    try:
        async with SchemaRegistry(registry.url, registry) as client:
            await client.fetch(ANY_SCHEMA_ID)
    except (SchemaDoesNotExist, SchemaUnusable):
        return [ok(REGISTRY, f"{registry.url} answers")]
    except SchemaRefused as error:
        todo = "fix kafka.schema_registry: while the registry refuses, records become dead letters"
        return [fail(REGISTRY, f"{registry.url}: {error}", todo)]
    except RegistryNotAnswering as error:
        return [
            fail(REGISTRY, str(error), "fix kafka.schema_registry: records wait until the registry answers")
        ]
    return [ok(REGISTRY, f"{registry.url} answers")]


def _passes(checks: list[Check]) -> bool:
    return all(found.status is not Status.FAIL for found in checks)


def _print_json(checks: list[Check]) -> None:
    echo_json({"ok": _passes(checks), "checks": [found.as_json() for found in checks]})


def _print_lines(checks: list[Check]) -> None:
    for found in checks:
        echo(f"{found.status:<4}  {found.name}: {found.detail}")
        if found.fix:
            echo_lines(f"      to do: {hanging(found.fix, 13)}")


def _print_table(checks: list[Check]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for found in checks:
        detail = Text(found.detail)
        if found.fix:
            detail.append(f"\nto do: {found.fix}", style="bold")
        table.add_row(Text(found.status, style=COLOURS[found.status]), Text(found.name), detail)
    Terminal().print(table)
