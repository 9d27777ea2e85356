"""Each region, reason and record type is complete: a test fails with the name of the part that is missing.

Facts about an enum member are on the member (`Reason.outcome`, `Reason.kinds`, `Region.track_url`, …). These tests
check the other places that must know the member: texts for people, and formats such as the ledger's schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine_world import START_MS
from flagpost_consumer.commands.explain.stories import MEANINGS
from flagpost_consumer.core.outcomes import STANDINGS, Kind, Outcome, Reason
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.settings.sections import Region
from flagpost_publisher.gateway.key import SentType
from flagpost_schemas import EVENT_TYPES, LEDGER_SCHEMA, Event, new_event_id
from flagpost_schemas.json_form import TYPES, event_from_json

ROOT = Path(__file__).parents[2]
AVRO = ROOT / "schemas" / "avro"
NAMES = {event_type: name for name, event_type in TYPES.items()}
REQUIRED: dict[str, Any] = {
    "visitor_id": "v1", "account_id": "a1", "flag_key": "f", "enabled": True, "decision_event_dispatched": True,
    "event": "Clicked", "values": {"plan": "pro"},
}  # fmt: skip
"""A value for each field that is required in some record type."""


def ledger_symbols(enum: str) -> set[str]:
    """Return the symbols of an enum in the ledger's schema."""
    found: list[set[str]] = []

    def look(schema: Any) -> None:
        if isinstance(schema, dict):
            if schema.get("type") == "enum" and schema["name"].rpartition(".")[2] == enum:
                found.append(set(schema["symbols"]))
            for value in schema.values():
                look(value)
        elif isinstance(schema, list):
            for value in schema:
                look(value)

    look(json.loads(LEDGER_SCHEMA.text))
    (symbols,) = found
    return symbols


def lacks(checks: dict[str, bool]) -> list[str]:
    return [what for what, is_there in checks.items() if not is_there]


def page(*parts: str) -> str:
    return ROOT.joinpath("docs", *parts).read_text()


def lacks_of_reason(name: str, outcome: Outcome, kinds: Iterable[Kind]) -> list[str]:
    return lacks(
        {
            "a kind of delivery that can end so (Reason.kinds)": bool(set(kinds)),
            "a symbol of the ledger's enum Reason (Settlements.avsc)": name in ledger_symbols("Reason"),
            "a place in reconcile's order of standings (FURTHEST_FIRST)": name in STANDINGS,
            "words for people in explain (MEANINGS)": name in MEANINGS,
            "a place in docs/reconcile.md": f"`{name}`" in page("reconcile.md") or name == Reason.OK,
            "a row in docs/runbooks/FlagpostDeadLetters.md": outcome is not Outcome.DEAD_LETTERED
            or f"| `{name}` |" in page("runbooks", "FlagpostDeadLetters.md"),
        }
    )


def lacks_of_region(name: str, *urls: str) -> list[str]:
    return lacks(
        {
            "https URLs with a host (Region)": all(
                urlsplit(url).scheme == "https" and urlsplit(url).hostname for url in urls
            ),
            "its name in docs/settings.md": f"`{name}`" in page("settings.md"),
            "its name in the chart's schema (make chart-schema)": f'"{name}"'
            in (ROOT / "helm" / "flagpost" / "values.schema.json").read_text(),
        }
    )


def lacks_of_record(event_type: type[Event]) -> list[str]:
    name = event_type.__name__
    return lacks(
        {
            f"a schema ({name}.avsc)": (AVRO / f"{name}.avsc").exists(),
            f"a version of its schema (versions/{name}.1.avsc)": (
                AVRO / "versions" / f"{name}.1.avsc"
            ).exists(),
            "a JSON form (json_form.TYPES)": event_type in NAMES,
            "a type that write keys may send (SentType)": NAMES.get(event_type) in set(SentType),
            "a plan for its deliveries (Planner)": is_planned(event_type),
            "a row in docs/gateway.md": f"| {name} |" in page("gateway.md"),
        }
    )


def is_planned(event_type: type[Event]) -> bool:
    name = NAMES.get(event_type)
    if name is None:
        return False
    fields = {each: value for each, value in REQUIRED.items() if each in event_type.__dataclass_fields__}
    event = event_from_json(
        {"type": name, **fields, "occurred_at": START_MS}, now_ms=START_MS, new_event_id=new_event_id
    )
    planned = Planner(Policy(can_send_metadata=True)).plan(event, START_MS)
    return bool(planned) and any(each.ending is None for each in planned)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_known_everywhere(reason: Reason) -> None:
    assert lacks_of_reason(reason.value, reason.outcome, reason.kinds) == []


@pytest.mark.parametrize("region", Region)
def test_a_region_is_known_everywhere(region: Region) -> None:
    assert lacks_of_region(region.value, region.track_url, region.api_url) == []


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_record_type_is_known_everywhere(event_type: type[Event]) -> None:
    assert lacks_of_record(event_type) == []


@pytest.mark.parametrize("enum", [Kind, Outcome, Reason], ids=lambda enum: enum.__name__)
def test_an_enum_of_the_ledger_has_the_members_and_unknown(enum: type[StrEnum]) -> None:
    assert ledger_symbols(enum.__name__) == {"unknown", *(member.value for member in enum)}


def test_there_is_no_schema_without_its_class() -> None:
    assert {path.stem for path in AVRO.glob("*.avsc")} == {
        "Settlements", *(each.__name__ for each in EVENT_TYPES),
    }  # fmt: skip


def test_no_two_outcomes_have_the_same_rank() -> None:
    assert len({outcome.rank for outcome in Outcome}) == len(Outcome)


def planted() -> Iterator[tuple[list[str], str]]:
    yield lacks_of_reason("too_cold", Outcome.DEAD_LETTERED, Kind), "the ledger's enum Reason"
    yield lacks_of_reason("too_cold", Outcome.DEAD_LETTERED, Kind), "FURTHEST_FIRST"
    yield lacks_of_reason("too_cold", Outcome.DEAD_LETTERED, Kind), "docs/runbooks/FlagpostDeadLetters.md"
    yield lacks_of_reason("ok", Outcome.DELIVERED, ()), "Reason.kinds"
    yield lacks_of_region("mars", "http://data.mars.pendo.io/data/track"), "https URLs"
    yield lacks_of_region("mars", "https://data.mars.pendo.io/data/track"), "make chart-schema"
    yield lacks_of_record(type("ScreenView", (), {"__dataclass_fields__": {}})), "ScreenView.avsc"
    yield lacks_of_record(type("ScreenView", (), {"__dataclass_fields__": {}})), "Planner"


@pytest.mark.parametrize(("lacking", "named"), [*planted()])
def test_a_missing_part_is_reported_by_name(lacking: list[str], named: str) -> None:
    assert any(named in each for each in lacking), lacking
