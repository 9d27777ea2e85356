"""Warns of fields in a file that Pendo lacks, before an import begins: their values would be dropped.

In: the file's fields, Pendo's fields from its schema. Out: lines on stderr, and on a terminal a question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import click

from flagpost_consumer.adapters.pendo.fields import read_fields
from flagpost_consumer.commands.check.fields import WantedField, judge_fields
from flagpost_consumer.commands.check.results import Status, hanging
from flagpost_consumer.commands.imports.options import Options
from flagpost_consumer.core.planning.plan import FieldCatalog
from flagpost_consumer.settings import PendoSettings
from flagpost_consumer.terminal.asking import confirmed
from flagpost_consumer.terminal.echo import echo, echo_lines
from flagpost_schemas import MetadataGroup

NOTHING_DONE = "nothing was imported"


def say_missing_fields(fields: Mapping[str, str], options: Options, pendo: PendoSettings) -> list[str] | None:
    """Print the fields that Pendo lacks; returns them, or None if that is not known.

    Raises:
        click.ClickException: the person at the terminal cancels the import.
    """
    if not fields:
        return []
    catalog = asyncio.run(_catalog(pendo))
    if catalog is None:
        return None
    place = options.type_name, options.group or MetadataGroup.CUSTOM.value
    found = judge_fields({WantedField(*place, name): type_ for name, type_ in fields.items()}, catalog)
    if found.status is Status.OK:
        return []
    echo(found.detail, err=True)
    echo_lines(f"to do: {hanging(found.fix, 7)}", err=True)
    if place not in catalog:
        return None
    _ask(options)
    return [name for name in fields if name not in catalog[place]]


async def _catalog(pendo: PendoSettings) -> FieldCatalog | None:
    from flagpost_consumer.commands.sources.pendo_api import pendo_api  # noqa: PLC0415 - an HTTP client, not for help

    async with pendo_api(pendo) as api:
        return None if api is None else await read_fields(api.get_json)


def _ask(options: Options) -> None:
    if not (options.yes or options.dry_run) and not confirmed("Import the file anyway?"):
        raise click.ClickException(NOTHING_DONE)
