"""Any input to `flagpost preview` ends with exit code 0 or 1 and a JSON document or a line, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.commands.cli import flagpost
from flagpost_schemas import Decoder, encode_single_object
from flagpost_schemas.json_form import TYPES, EventFormError, event_from_json

NOW_MS = 1_800_000_000_000
TEXTS = st.text(max_size=40) | st.sampled_from(["", "\x00", "\ud800", "\udfff\ud800", "x" * 1_600, "1e999"])
NAMES = TEXTS | st.sampled_from(
    ["type", "event_id", "occurred_at", "visitor_id", "account_id", "anonymous_id", "flag_key", "enabled", "event",
     "variation_key", "rule_key", "decision_event_dispatched", "properties", "attributes", "values", "context",
     "consent", "source", "group", "ip", "url", "analytics", "service"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
    | st.sampled_from(["2026-01-31T12:00:00Z", "0001-01-01T00:00:00+23:59", "custom", 2**63, 2**64, 10**30]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)  # fmt: skip
GOOD: dict[str, dict[str, object]] = {
    "decision": {"visitor_id": "v", "flag_key": "f", "enabled": True, "decision_event_dispatched": True},
    "track": {"visitor_id": "v", "event": "e"},
    "visitor": {"visitor_id": "v", "values": {"role": "admin"}},
    "account": {"account_id": "a", "values": {"tags": ["x", "y"]}},
}
EVENTS = JSON | st.builds(
    lambda name, changes: {"type": name, **GOOD[name], **changes},
    st.sampled_from(list(TYPES)),
    st.dictionaries(NAMES, JSON, max_size=3),
)
INPUTS = (
    EVENTS.map(lambda event: json.dumps(event).encode())
    | st.builds(lambda event, cut: json.dumps(event).encode()[:-cut], EVENTS, st.integers(1, 9))
    | st.binary(max_size=60)
    | st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b""]
    )
)


@given(EVENTS)
@settings(deadline=None)
def test_a_document_that_is_read_as_an_event_can_be_published(document: object) -> None:
    try:
        event = event_from_json(document, now_ms=NOW_MS, new_event_id=lambda: "new")
    except EventFormError as error:
        told = error
    else:
        assert Decoder().decode(encode_single_object(event)) == event
        return
    assert told.field
    assert told.problem


def preview(given_bytes: bytes, *options: str) -> Result:
    result = CliRunner().invoke(
        flagpost, ["preview", *options], input=given_bytes, env={"FLAGPOST_CONFIG": None}
    )
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code in (0, 1)
    return result


@given(INPUTS)
@settings(deadline=None)
def test_preview_shows_an_event_or_says_in_a_line_why_not(given_bytes: bytes) -> None:
    result = preview(given_bytes, "--json")
    if not result.stdout:
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: ")
        return
    shown = json.loads(result.stdout)
    assert (result.exit_code == 0) == bool(shown["requests"])
    assert shown["requests"] or shown["settled"]
    for request in shown["requests"]:
        json.loads(request["body"])
    people = preview(given_bytes)
    assert people.exit_code == result.exit_code
    assert people.stdout


@given(st.binary(max_size=100) | JSON.map(lambda document: json.dumps(document).encode()))
@settings(deadline=None, max_examples=examples(50))
def test_any_schema_file_is_read_or_refused_in_a_line(content: bytes) -> None:
    with TemporaryDirectory() as directory:
        schema = Path(directory) / "schema.json"
        schema.write_bytes(content)
        result = preview(
            json.dumps({"type": "decision", **GOOD["decision"]}).encode(), "--schema", str(schema)
        )
    assert result.stdout or result.stderr.startswith("Error: the schema file holds no")
