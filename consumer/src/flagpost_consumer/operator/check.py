"""`flagpost check`: everything that can be known before the service runs.

In: settings. Out: a list of checks, for people or as one JSON document; exit code 1 where something fails. The
checks of different systems run side by side, each with a time-out, so that the whole takes seconds.
"""

from __future__ import annotations

import asyncio
import sys

import click
from rich.table import Table
from rich.text import Text

from flagpost_consumer.adapters.schema_registry import (
    RegistryNotAnswering,
    SchemaDoesNotExist,
    SchemaRefused,
    SchemaRegistry,
    SchemaUnusable,
)
from flagpost_consumer.operator.check_results import Check, Status, fail, ok
from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.kafka_checks import check_kafka
from flagpost_consumer.operator.pendo_checks import check_pendo
from flagpost_consumer.operator.privacy.visitor_argument import VISITOR
from flagpost_consumer.operator.rich_terminal import Terminal
from flagpost_consumer.operator.terminal import echo, echo_json
from flagpost_consumer.settings import Needs, SchemaRegistrySettings, Settings, SettingsError

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
REGISTRY = "schema registry"
ANY_SCHEMA_ID = 1
"""Whether it exists or not: to be told is what is checked."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--send-test-event",
    "test_visitor",
    metavar="VISITOR",
    type=VISITOR,
    help="Send one event, Flagpost check, of this visitor, and say what Pendo answers: so the track secret is tried.",
)
@click.pass_obj
def check(settings_for: SettingsLoader, *, test_visitor: str | None, as_json: bool) -> None:
    """Check settings, Kafka, topics, the schema registry, Pendo's keys and metadata fields.

    Nothing is sent that Pendo would count, unless --send-test-event is given; where a consumer runs at the admin
    address of the settings, it is asked how Pendo answers.

    Exit code 0 (warnings included), 1 when something fails, 2 for settings that cannot be used.
    """
    try:
        settings = settings_for(Needs.KAFKA | Needs.PENDO | Needs.WEBHOOK_TOPIC)
        checks = asyncio.run(run_checks(settings, test_visitor))
    except SettingsError as error:
        if as_json:
            _print_json([fail("settings", str(error), "mend the settings named")])
        raise
    if as_json:
        _print_json(checks)
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        _print_lines(checks)
    raise SystemExit(0 if _passes(checks) else 1)


async def run_checks(settings: Settings, test_visitor: str | None = None) -> list[Check]:
    """Run every check; `test_visitor`: whose test event is sent.

    Raises:
        SettingsError: librdkafka refuses kafka.properties.
    """
    kafka, registry, pendo = await asyncio.gather(
        asyncio.to_thread(check_kafka, settings),
        check_registry(settings.kafka.schema_registry),
        check_pendo(settings, test_visitor),
    )
    return [ok("settings", "every key and value is accepted"), *kafka, *registry, *pendo]


async def check_registry(registry: SchemaRegistrySettings) -> list[Check]:
    """Ask the registry what the service will ask it, if there is one."""
    if registry.url is None:
        return []
    try:
        async with SchemaRegistry(registry.url, registry) as client:
            await client.fetch(ANY_SCHEMA_ID)
    except (SchemaDoesNotExist, SchemaUnusable):
        return [ok(REGISTRY, f"{registry.url} answers")]
    except SchemaRefused as error:
        todo = "fix kafka.schema_registry: records become dead letters where it goes on"
        return [fail(REGISTRY, f"{registry.url}: {error}", todo)]
    except RegistryNotAnswering as error:
        return [
            fail(REGISTRY, str(error), "mend kafka.schema_registry: records wait until the registry answers")
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
            echo(f"      to do: {found.fix}")


def _print_table(checks: list[Check]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for found in checks:
        detail = Text(found.detail)
        if found.fix:
            detail.append(f"\nto do: {found.fix}", style="bold")
        table.add_row(Text(found.status, style=COLOURS[found.status]), Text(found.name), detail)
    Terminal().print(table)
