"""`flagpost preview`: the exact requests, the repairs, and how the event would be settled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagpost_consumer.commands.cli import flagpost

DECISION = {
    "type": "decision",
    "visitor_id": "v1",
    "flag_key": "checkout",
    "enabled": True,
    "variation_key": "treatment",
    "rule_key": "rule",
    "decision_event_dispatched": True,
    "account_id": "acme",
    "context": {"ip": "203.0.113.7"},
}

TOO_LARGE = {"type": "track", "visitor_id": "v", "event": "e", "properties": {"p": "x" * 70_000}}
"""Larger than `kafka.max_event_bytes`: publisher, gateway and import refuse it, and the consumer dead-letters it."""


def preview(event: object, *options: str, env: dict[str, str] | None = None) -> Result:
    text = event if isinstance(event, (str, bytes)) else json.dumps(event)
    return CliRunner().invoke(flagpost, ["preview", *options], input=text, env=env or {})


HEADERS = {
    "x-pendo-integration-key": "***",
    "content-type": "application/json",
    "accept-encoding": "identity",
}


def test_the_exact_requests_of_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    result = preview(DECISION, "--json", env={"FLAGPOST_PENDO__REGION": "eu"})
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "requests": [
            {
                "method": "POST",
                "url": "https://data.eu.pendo.io/data/track",
                "headers": HEADERS,
                "body": '{"type":"track","event":"Experiment Viewed","visitorId":"v1","accountId":"acme",'
                '"timestamp":1800000000000,"properties":{"flag_key":"checkout","variation_key":"treatment",'
                '"rule_key":"rule","enabled":true},"context":{"ip":"203.0.113.7"}}',
            },
            {
                "method": "POST",
                "url": "https://app.eu.pendo.io/api/v1/metadata/visitor/custom/value?create=true",
                "headers": HEADERS,
                "body": '[{"visitorId":"v1","values":{"[Optimizely] checkout":"treatment"}}]',
            },
        ],
        "repairs": [],
        "settled": None,
    }


def test_the_text_for_people_shows_the_same_requests() -> None:
    result = preview(DECISION)
    assert result.exit_code == 0, result.output
    assert "POST https://data.pendo.io/data/track\nx-pendo-integration-key: ***\n" in result.stdout
    assert '"properties":{"flag_key":"checkout"' in result.stdout


@pytest.mark.parametrize(("anonymous", "sent"), [("as_visitor", "a"), ("as_anonymous", "_PENDO_T_a")])
def test_an_anonymous_visitor_is_shown_under_the_name_that_pendo_gets(anonymous: str, sent: str) -> None:
    event = {"type": "track", "event": "e", "anonymous_id": "a"}
    result = preview(event, "--json", env={"FLAGPOST_MAPPING__ANONYMOUS": anonymous})
    (request,) = json.loads(result.stdout)["requests"]
    assert json.loads(request["body"])["visitorId"] == sent


def test_a_repair_is_reported_with_its_rule() -> None:
    event = {"type": "track", "visitor_id": "v", "event": "e", "properties": {"2nd plan": 1, "error": "x"}}
    result = preview(event, "--json")
    shown = json.loads(result.stdout)
    assert [(repair["rule"], repair["field"]) for repair in shown["repairs"]] == [
        ("name_characters", "2nd plan"),
        ("name_digit", "2nd plan"),
        ("name_reserved", "error"),
    ]
    assert '"properties":{"_2nd_plan":1,"error_":"x"}' in shown["requests"][0]["body"]


@pytest.mark.parametrize(
    ("event", "env", "settled"),
    [
        ({**DECISION, "visitor_id": ""}, {}, ("dropped", "no_visitor_id")),
        ({**DECISION, "event_id": "e" * 129}, {}, ("dead_lettered", "invalid")),
        (DECISION, {"FLAGPOST_DECISIONS__FLAGS_DENY": '["check*"]'}, ("dropped", "flag_filtered")),
        ({**DECISION, "consent": {"analytics": False}}, {}, ("dropped", "no_consent")),
        (DECISION, {"FLAGPOST_SELECT__ENVIRONMENTS__ALLOW": '["prod*"]'}, ("dropped", "not_selected")),
        ({"type": "track", "event": "e", "anonymous_id": "a"}, {}, ("dropped", "no_visitor_id")),
        (TOO_LARGE, {}, ("dead_lettered", "invalid")),
        (DECISION, {"FLAGPOST_KAFKA__MAX_EVENT_BYTES": "50"}, ("dead_lettered", "invalid")),
    ],
)
def test_an_event_that_would_not_be_sent_shows_how_it_would_be_settled(
    event: object, env: dict[str, str], settled: tuple[str, str]
) -> None:
    result = preview(event, "--json", env=env)
    assert result.exit_code == 1, result.output
    shown = json.loads(result.stdout)
    assert shown["requests"] == []
    assert shown["settled"] == {"outcome": settled[0], "reason": settled[1]}


def test_an_old_decision_still_sets_its_metadata() -> None:
    result = preview({**DECISION, "occurred_at": "2020-01-01T00:00:00Z"}, "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [request["url"].rsplit("/", 1)[1] for request in shown["requests"]] == ["value?create=true"]
    assert shown["settled"] == {"outcome": "dead_lettered", "reason": "expired"}


def test_pendos_schema_resolves_fields(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"custom":{"optimizely_checkout":{"display_name":"[Optimizely] checkout"}},"agent":{}}'
    )
    result = preview(DECISION, "--json", "--schema", str(schema))
    assert '{"optimizely_checkout":"treatment"}' in json.loads(result.stdout)["requests"][1]["body"]
    schema.write_text('{"custom":{},"agent":{}}')
    missing = preview(DECISION, "--schema", str(schema))
    assert "field_missing" in missing.stdout
    schema.write_text("[]")
    wrong = preview(DECISION, "--schema", str(schema))
    assert wrong.exit_code == 1, wrong.output
    assert "GET /api/v1/metadata/schema/visitor" in wrong.stderr


def test_a_schema_file_that_is_not_text_is_reported_without_a_traceback(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_bytes(b"\xff\xfe")
    result = preview(DECISION, "--schema", str(schema))
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "the schema file holds no custom or agent fields" in result.stderr


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"type":"decision"}', "visitor_id: is missing"),
        ('{"type":"page"}', "type: must be one of decision, track, visitor, account"),
        (b"\xff\xfe", "is UTF-16; save it as UTF-8"),
        (b"\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5_000, "is not JSON"),
        ('{"type":"track","visitor_id":"\\ud800","event":"e"}', "is not JSON"),
    ],
)
def test_an_invalid_event_is_reported_without_a_traceback(text: str | bytes, part: str) -> None:
    result = preview(text)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert part in result.stderr


def test_settings_that_cannot_be_used_end_with_2() -> None:
    result = preview(DECISION, env={"FLAGPOST_DELIVERY__MAX_ATTEMPS": "3"})
    assert result.exit_code == 2, result.output
    assert "delivery.max_attemps" in result.stderr
    assert "delivery.max_attempts" in result.stderr
