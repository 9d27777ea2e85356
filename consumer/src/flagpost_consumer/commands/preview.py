"""`flagpost preview`: what one event would become, without sending anything.

In: an event as JSON, the settings, optionally Pendo's metadata schema as a file. Out: the exact requests, what was
repaired and why, and how the event would end if it were not sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import click
import orjson

from flagpost_consumer.adapters.http.headers import IDENTITY
from flagpost_consumer.adapters.pendo.address import PendoAddress, pendo_address
from flagpost_consumer.adapters.pendo.fields import parse_schema
from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.planning.mapping import metadata_body, track_body
from flagpost_consumer.core.planning.pendo_rules import Repair, Rule
from flagpost_consumer.core.planning.plan import FieldCatalog, Planned, Planner
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure
from flagpost_consumer.settings import Needs, planned_policy
from flagpost_consumer.terminal.asking import at_a_terminal
from flagpost_consumer.terminal.echo import Coloured, echo, echo_json, echo_json_text
from flagpost_schemas import encode_single_object, new_event_id, partition_key
from flagpost_schemas.edge_rules import too_large
from flagpost_schemas.json_form import EventFormError, event_from_json
from flagpost_schemas.text_encoding import foreign_encoding

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it would go out; `body` is its exact text."""

    method: str
    url: str
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of an event."""

    planned: tuple[Planned, ...]
    requests: tuple[Request, ...]

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """The repairs in the requests; nothing is repaired in what is not sent."""
        return tuple(repair for plan in self.planned if plan.ending is None for repair in plan.repairs)

    @property
    def ending(self) -> Ending | None:
        """How the first delivery that is not sent would end."""
        return next((plan.ending for plan in self.planned if plan.ending is not None), None)

    def as_json(self) -> dict[str, Any]:
        """The document of docs/contract.md#json-output."""
        ending = self.ending
        return {
            "requests": [
                {"method": r.method, "url": r.url, "headers": r.headers, "body": r.body}
                for r in self.requests
            ],
            "repairs": [
                {"rule": repair.rule.value, "field": repair.field, "detail": repair.detail}
                for repair in self.repairs
            ],
            "settled": ending and {"outcome": ending.outcome.value, "reason": ending.reason.value},
        }


def foresee(
    event: object,
    policy: Policy,
    address: PendoAddress,
    fields: FieldCatalog,
    max_event_bytes: int,
) -> Preview:
    """Plan one JSON event. Raises EventFormError if it is not an event."""
    now_ms = time.time_ns() // 1_000_000
    planner = Planner(policy)
    planner.fields = fields
    typed = event_from_json(event, now_ms=now_ms, new_event_id=new_event_id)
    wrong = too_large(partition_key(typed), len(encode_single_object(typed)), max_event_bytes)
    refused = None if wrong is None else DecodeFailure(Reason.INVALID, f"the event {wrong}; publish less")
    planned = planner.plan(refused or typed, now_ms)
    return Preview(planned, tuple(request for plan in planned for request in _requests(plan, address)))


def _requests(planned: Planned, address: PendoAddress) -> Iterator[Request]:
    if planned.ending is not None:
        return
    if planned.track is not None:
        headers = {**address.headers(EndpointName.TRACK, HIDDEN), **IDENTITY}
        yield Request("POST", address.track_url, headers, track_body(planned.track).decode())
    if planned.metadata is not None:
        metadata = planned.metadata
        body = metadata_body(metadata.target, [(metadata.target_id, metadata.values)])
        headers = {**address.headers(EndpointName.METADATA, HIDDEN), **IDENTITY}
        yield Request("POST", address.metadata_url(metadata.target, metadata.group), headers, body.decode())


def read_schema_file(content: bytes) -> FieldCatalog:
    """Parse the answer of Pendo's schema endpoint for visitors or accounts; it serves both."""
    groups = parse_schema(content)
    if not groups:
        raise click.ClickException(
            "the schema file holds no custom or agent fields: save what Pendo answers to "
            "GET /api/v1/metadata/schema/visitor"
        )
    return {(target, group): fields for target in ("visitor", "account") for group, fields in groups.items()}


@click.command("preview")
@click.argument("source", metavar="[FILE|-]", type=click.File("rb"), default="-")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--schema",
    type=click.File("rb"),
    help="Pendo's answer to GET /api/v1/metadata/schema/visitor, to find the names of metadata fields.",
)
@click.pass_obj
def preview(load: SettingsLoader, source: IO[bytes], as_json: bool, schema: IO[bytes] | None) -> None:
    """Show the requests to Pendo that a JSON event would become; `-`, the default, reads it from stdin.

    Nothing is sent. Exit code 1 if the event would cause no request.
    """
    settings = load(Needs.NOTHING)
    fields = read_schema_file(schema.read()) if schema is not None else {}
    name = getattr(source, "name", "the input")  # standard input that is no file has no name
    if at_a_terminal() and source.fileno() == sys.stdin.fileno():
        echo("waiting for an event in JSON on stdin; end it with Ctrl-D", err=True)
    content = source.read()
    if (encoding := foreign_encoding(content)) is not None:
        raise click.ClickException(f"{name} is {encoding}; save it as UTF-8")
    try:
        shown = foresee(
            orjson.loads(content),
            planned_policy(settings),
            pendo_address(settings),
            fields,
            settings.kafka.max_event_bytes,
        )
    except orjson.JSONDecodeError as error:
        raise click.ClickException(f"{name} is not JSON: {error}") from None
    except EventFormError as error:
        raise click.ClickException(f"{name} is not an event: {error}") from None
    if as_json:
        echo_json(shown.as_json())
    else:
        _print(shown)
    sys.exit(0 if shown.requests else 1)


def _print(shown: Preview) -> None:
    for request in shown.requests:
        echo(Coloured(f"{request.method} {request.url}", bold=True))
        for name, value in request.headers.items():
            echo(f"{name}: {value}")
        echo_json_text(f"\n{request.body}\n\n".encode())
    for repair in shown.repairs:
        reserved = repair.rule is Rule.NAME_RESERVED
        echo(f"{'warning' if reserved else 'repaired'} ({repair.rule.value}): {repair.field} {repair.detail}")
    for plan in shown.planned:
        for field in plan.missing_fields:
            echo(f"left out, because Pendo's schema does not have it: field {field}")
        if plan.ending is not None:
            ending = plan.ending
            echo(
                f"{plan.kind.value} not sent: {ending.outcome.value}, {ending.reason.value}: {ending.detail}"
            )
