"""Which metadata fields Pendo lacks, and how to create them.

In: settings, Pendo's metadata schemas, the newest events. Out: a check. It looks for the fields of the flags that the
settings name, and those that the newest events set: values for a field that Pendo lacks are dropped (field_missing).
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import NamedTuple

from flagpost_consumer.adapters.pendo.fields import GetJson, read_fields
from flagpost_consumer.commands.check.results import Check, Status, ok, warn
from flagpost_consumer.commands.sources.newest_events import Sample
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.plan import FieldCatalog, Planner
from flagpost_consumer.core.planning.selection import matches
from flagpost_consumer.core.policy import DecisionsSettings
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_consumer.terminal.numbers import count_of
from flagpost_schemas import Event
from flagpost_schemas.times import read_time

FIELDS = "metadata fields"
GLOB_CHARACTERS = "*?["
MAX_LISTED = 20
MAX_NAME_CHARACTERS = 200
_TYPES: dict[type, str] = {bool: "boolean", int: "number", float: "number", list: "list"}
"""Pendo's type for a value (Pendo's page on metadata and data types); everything else is text."""


def pendo_type(value: object) -> str:
    """The type that a Pendo field needs for a value."""
    if isinstance(value, str) and (moment := read_time(value)) is not None and moment.tzinfo is not None:
        return "date"  # Pendo's date fields take RFC 3339
    return _TYPES.get(type(value), "text")


class WantedField(NamedTuple):
    """A field that values are sent to."""

    target: str
    """`visitor` or `account`."""
    group: str
    """`custom` or `agent`."""
    name: str
    """Its API name or display name, as in the settings or the event."""


Wanted = Mapping[WantedField, str]
"""Fields, each with the type for its values."""


async def check_fields(get_json: GetJson, settings: Settings, sample: Awaitable[Sample]) -> Check:
    """Compare the wanted fields with those that Pendo's schema endpoint lists."""
    traffic = await sample
    wanted = wanted_fields(settings, traffic.events)
    if not wanted and traffic.unread:
        return warn(
            FIELDS,
            "nothing was compared: no flag is named in decisions.flags_allow, decisions.metadata_fields or "
            f"metrics.flags, and the newest events cannot be read: {traffic.unread}",
            "make the events topic readable, then check again",
        )
    if not wanted:
        return ok(
            FIELDS,
            "nothing to compare: no flag is named in decisions.flags_allow, decisions.metadata_fields "
            "or metrics.flags, and the newest events set no metadata",
        )
    found = judge_fields(wanted, await read_fields(get_json))
    if found.status is Status.OK and traffic.unread:
        return warn(
            FIELDS,
            f"Pendo has {_all(wanted)} that the settings name; events may set more, but the newest events "
            f"cannot be read: {traffic.unread}",
            "make the events topic readable, then check again",
        )
    return found


def judge_fields(wanted: Wanted, catalog: FieldCatalog) -> Check:
    """Judge the wanted fields by Pendo's; the catalog lacks groups that could not be read."""
    missing = {
        field: type_
        for field, type_ in wanted.items()
        if field.name not in catalog.get(field[:2], {field.name})
    }
    if missing:
        dropped = f"Pendo lacks {len(missing)} of {count_of(len(wanted), 'field')}; their values are dropped"
        return warn(FIELDS, dropped, _creation(missing))
    unread = sorted({" ".join(field[:2]) for field in wanted if field[:2] not in catalog})
    if unread:
        return warn(
            FIELDS,
            f"Pendo's schema of {', '.join(unread)} metadata cannot be read; values are sent under the configured "
            "names",
            "fix the integration key first, then check again",
        )
    return ok(FIELDS, f"Pendo has {_all(wanted)} that the settings name or the newest events set")


def _all(wanted: Wanted) -> str:
    return "the one field" if len(wanted) == 1 else f"all {len(wanted)} fields"


def _creation(missing: Wanted) -> str:
    """What to do in Pendo, for each tab of its page for metadata fields; a line for each field."""
    steps = []
    for target in ("visitor", "account"):
        custom = [_form(field.name, missing[field]) for field in missing if field[:2] == (target, "custom")]
        if custom:
            steps.append(f"in Pendo, Settings > Data Mappings > {target.title()}, Add Custom Field:")
            steps += _listed(custom)
    agent = [f"{_quoted(field.name)} of {field.target}s" for field in missing if field.group == "agent"]
    if agent:
        steps.append("let Pendo's install script send these once, or send group custom instead of agent:")
        steps += _listed(agent)
    return "\n".join(steps)


def _form(name: str, type_: str) -> str:
    """How to create a field. Pendo derives the API name from the first display name, and never changes it."""
    api_name = segment_name(name)[:MAX_NAME_CHARACTERS]
    if api_name == name:
        return f"{name} of type {type_}"
    return f"{api_name} of type {type_}, then change its display name to {_quoted(name)}"


def segment_name(name: str) -> str:
    """An API name that Pendo's segments can use: letters, digits, underscores, no digit first."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name)
    if plain != name or not name:
        plain = plain.strip("_").lower() or "field"
    return f"_{plain}" if plain[0].isdigit() else plain


def _quoted(name: str) -> str:
    return f'"{legible(name, MAX_NAME_CHARACTERS)}"'


def _listed(texts: list[str]) -> list[str]:
    more = [f"and {len(texts) - MAX_LISTED} more"] if len(texts) > MAX_LISTED else []
    return [f"  {text}" for text in (*texts[:MAX_LISTED], *more)]


# What is wanted


def wanted_fields(settings: Settings, events: Iterable[Event]) -> Wanted:
    """The fields of the flags that the settings name, and of the events as the consumer would plan them."""
    named = [(WantedField("visitor", "custom", field), "text") for _, field in named_flags(settings)]
    wanted: dict[WantedField, str] = {}
    for field, type_ in (*_set_by(events, settings), *named):
        wanted[field] = type_ if wanted.get(field, type_) == type_ else "text"
    return wanted


def named_flags(settings: Settings) -> Iterator[tuple[str, str]]:
    """Flags in the settings whose decisions are sent, each with its field."""
    decisions = settings.decisions
    named = [*(decisions.flags_allow or ()), *decisions.metadata_fields, *settings.metrics.flags]
    for flag in dict.fromkeys(named):
        if decisions.visitor_metadata and not set(flag) & set(GLOB_CHARACTERS) and _is_sent(flag, decisions):
            template = decisions.metadata_field.replace("{flag_key}", flag)
            yield flag, decisions.metadata_fields.get(flag, template)


def _is_sent(flag: str, decisions: DecisionsSettings) -> bool:
    allowed = decisions.flags_allow is None or matches(flag, decisions.flags_allow)
    return allowed and not matches(flag, decisions.flags_deny or [])


def _set_by(events: Iterable[Event], settings: Settings) -> Iterator[tuple[WantedField, str]]:
    planner, now_ms = Planner(engine_policy(settings)), time.time_ns() // 1_000_000
    for event in events:
        for plan in planner.plan(event, now_ms):
            if plan.metadata is not None and plan.ending is None:
                target, group = plan.metadata.target, plan.metadata.group
                for name, value in plan.metadata.values.items():
                    if value is not None:  # a null clears a field; without a field there is nothing to clear
                        yield WantedField(target, group, name), pendo_type(value)
