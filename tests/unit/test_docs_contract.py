"""docs/contract.md agrees with the programs, and code cites only pages, headings and decisions that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from documentation import contract, gateway_openapi, made_parts
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.settings import Settings
from flagpost_publisher.gateway import native, segment, webhooks_route
from flagpost_publisher.gateway.settings import Settings as GatewaySettings
from flagpost_schemas import EVENT_TYPES, new_event_id
from flagpost_schemas.json_form import TYPES, EventFormError, event_from_json

ROOT = Path(__file__).parents[2]
CODE = (
    "schemas",
    "publisher",
    "consumer",
    "tests",
    "helm",
    "benchmarks",
    "release",
    "documentation",
    "examples",
)
CITED = re.compile(r"docs/([\w/-]+\.md)(?:#([\w-]+))?")
DECISION = re.compile(r"(?:\bdecision |decisions/)(0\d{3})")
ELSEWHERE = re.compile(r"\b(CONTRACT|DESIGN)\b|[Ii]nvariants? \d+\b")
VALUE = re.compile(r"`.+`|\d+|true|false|\[\]|\{\}")
NOW = 1_800_000_000_000


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sources() -> Iterator[Path]:
    for folder in CODE:
        for pattern in ("*.py", "*.avsc", "*.yaml"):
            for path in (ROOT / folder).rglob(pattern):
                if "node_modules" not in path.parts and path != Path(__file__):
                    yield path


def wrong_citations(text: str) -> list[str]:
    """The citations in a text that name nothing in the repository."""
    wrong = [match[0] for match in ELSEWHERE.finditer(text)]
    for match in CITED.finditer(text):
        page = ROOT / "docs" / match[1]
        if not page.exists() or (match[2] and match[2] not in anchors(page)):
            wrong.append(match[0])
    decisions = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    return wrong + [match[0] for match in DECISION.finditer(text) if match[1] not in decisions]


def test_citations_in_code_exist_in_the_repository() -> None:
    found = {str(path.relative_to(ROOT)): wrong_citations(path.read_text()) for path in sources()}
    assert len(found) > 500
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("docs/contract.md#outcomes, decision 0036, docs/guarantees.md#no-loss", []),
        ("docs/contract.md#no-such-heading", ["docs/contract.md#no-such-heading"]),
        ("docs/none.md", ["docs/none.md"]),
        ("decision 0999", ["decision 0999"]),
        ("CONTRACT section 8; DESIGN, Fence; invariant 6", ["CONTRACT", "DESIGN", "invariant 6"]),
    ],
)
def test_a_citation_that_leads_nowhere_is_found(text: str, wrong: list[str]) -> None:
    assert wrong_citations(text) == wrong


def test_the_generated_parts_of_the_contract_are_up_to_date() -> None:
    text = contract.PAGE.read_text()
    assert contract.page(text) == text, "run: make contract"
    assert set(made_parts.names(text, "contract")) == set(contract.PARTS)


def test_the_openapi_document_is_up_to_date() -> None:
    assert contract.OPENAPI.read_text() == contract.openapi(), "run: make contract"


def test_every_command_has_its_exit_codes() -> None:
    text = contract.PAGE.read_text().partition("## Exit codes")[2].partition("## ")[0]
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([a-z -]+)`", rows))
    commands = {name.removeprefix("flagpost ") for name, _ in contract.every_command(flagpost, "flagpost")}
    missing = {name for name in commands if name not in named and name.split(" ", maxsplit=1)[0] not in named}
    assert missing == set()


def test_the_page_of_settings_has_the_defaults_of_the_programs() -> None:
    """Only where the page has a value: words (required, by region) are for people, and are not compared."""
    page = (ROOT / "docs" / "settings.md").read_text()
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \|", page, re.MULTILINE))
    for model in (Settings, GatewaySettings):
        for key, default in contract.defaults(model):
            said = told.get(key, "").strip()
            assert not VALUE.fullmatch(said) or said.strip("`") == default.strip("`"), key


def test_the_openapi_document_has_every_path() -> None:
    paths = gateway_openapi.document()["paths"]
    assert set(paths) == {native.PATH, *segment.FRONTS, webhooks_route.PATH}


EVENTS: list[dict[str, Any]] = [
    {"type": "decision", "visitor_id": "v", "flag_key": "f", "enabled": True, "decision_event_dispatched": False},
    {
        "type": "decision", "visitor_id": "v", "flag_key": "f", "enabled": True, "decision_event_dispatched": True,
        "rule_type": "experiment", "attributes": {"a": {"b": 1}}, "consent": {"analytics": True},
        "context": {"url": "https://example.com"}, "source": {"service": "shop"}, "event_id": "e",
    },
    {"type": "track", "event": "Clicked", "occurred_at": "2026-01-31T12:00:00Z", "properties": {"a": [1, 2]}},
    {"type": "visitor", "visitor_id": "v", "values": {"roles": ["a"]}, "group": "agent", "occurred_at": NOW},
    {"type": "account", "account_id": "a", "values": {"seats": 5}},
    {"type": "account", "values": {"seats": 5}},
    {"type": "track", "event": 5},
    {"type": "visitor", "visitor_id": "v", "group": "other"},
    {"type": "decision", "visitor_id": "v", "flag_key": "f", "enabled": "yes", "decision_event_dispatched": True},
    {"type": "track", "event": "Clicked", "colour": "red"},
    {"type": "track", "event": "Clicked", "context": {"colour": "red"}},
    {"type": "track", "event": "Clicked", "consent": {"analytics": "yes"}},
    {"type": "unheard"},
]  # fmt: skip


def is_taken(event: dict[str, Any]) -> bool:
    try:
        event_from_json(event, now_ms=NOW, new_event_id=new_event_id)
    except EventFormError:
        return False
    return True


@pytest.mark.parametrize("event", EVENTS, ids=json.dumps)
def test_the_schema_of_an_event_accepts_what_the_gateway_accepts(event: dict[str, Any]) -> None:
    document = gateway_openapi.document()
    schema = {"$ref": "#/components/schemas/Event", "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(schema["components"]["schemas"]["Event"])
    assert jsonschema.Draft202012Validator(schema).is_valid(event) is is_taken(event)


def test_there_are_events_of_each_type_and_some_that_are_refused() -> None:
    taken = [event["type"] for event in EVENTS if is_taken(event)]
    assert set(taken) == set(TYPES)
    assert len(EVENT_TYPES) == len(TYPES)
    assert len(taken) < len(EVENTS)
