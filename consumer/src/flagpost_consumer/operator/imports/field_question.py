"""Which fields of a file Pendo lacks, said before an import begins: their values would be dropped.

In: the fields that the file sets, Pendo's as its schema lists them. Out: lines on stderr, and on a terminal a
question.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

import click

from flagpost_consumer.adapters.pendo_fields import read_fields
from flagpost_consumer.core.plan import FieldCatalog
from flagpost_consumer.operator.check_results import Status
from flagpost_consumer.operator.field_checks import WantedField, judge_fields
from flagpost_consumer.operator.imports.options import Options
from flagpost_consumer.operator.pendo_api import pendo_api
from flagpost_consumer.operator.terminal import echo
from flagpost_consumer.settings import PendoSettings
from flagpost_schemas import MetadataGroup

NOTHING_DONE = "nothing was imported"


def say_missing_fields(fields: Mapping[str, str], options: Options, pendo: PendoSettings) -> list[str] | None:
    """Say which fields Pendo lacks; gives them, None where that is not known.

    Raises:
        click.ClickException: somebody at a terminal does not want the import then.
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
    echo(f"to do: {found.fix}", err=True)
    if place not in catalog:
        return None
    _ask(options)
    return [name for name in fields if name not in catalog[place]]


async def _catalog(pendo: PendoSettings) -> FieldCatalog | None:
    async with pendo_api(pendo) as api:
        return None if api is None else await read_fields(api.get_json)


def _ask(options: Options) -> None:
    is_asked = sys.stdin.isatty() and sys.stderr.isatty() and not (options.yes or options.dry_run)
    if is_asked and not click.confirm("Import the file all the same?", err=True):
        raise click.ClickException(NOTHING_DONE)
