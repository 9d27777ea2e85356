"""Every entry point refuses NUL in ids, and other encodings than UTF-8, and names the problem.

Before the fix, import, gateway and publisher passed a NUL on to Kafka, and a file in UTF-16 without a byte order mark
was refused row by row with errors about JSON, or about missing columns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.imports.rows import FileProblem
from flagpost_publisher import Publisher, PublisherError
from flagpost_publisher.gateway import json_documents, native, segment
from flagpost_publisher.gateway.fronts import DocumentError
from flagpost_schemas import DecisionEvent, TrackEvent, VisitorMetadata
from flagpost_settings.kafka import KafkaSettings
from flagpost_settings.problems import SettingsError
from flagpost_settings.secrets import ANY_TEXT, Secret, SecretSource
from fronts_reading import read_by
from imported_rows import import_bytes
from optimizely_fixtures import optimizely_client, user_of

CASE = Path(__file__).parents[1] / "cases" / "import-nul.csv"
DECISION = {
    "type": "decision",
    "visitor_id": "v",
    "account_id": "a",
    "flag_key": "f",
    "enabled": True,
    "variation_key": "on",
    "rule_key": "r",
    "experiment_id": "1",
    "variation_id": "2",
    "decision_event_dispatched": True,
    "event_id": "e",
}
TRACK = {"type": "track", "visitor_id": "v", "anonymous_id": "n", "account_id": "a", "event": "E"}
FIELDS = [
    *((DECISION, name) for name, value in DECISION.items() if isinstance(value, str) and name != "type"),
    *((TRACK, name) for name in ("visitor_id", "anonymous_id", "account_id", "event")),
    ({"type": "visitor", "visitor_id": "v", "values": {"plan": "gold"}}, "visitor_id"),
    ({"type": "account", "account_id": "a", "values": {"plan": "gold"}}, "account_id"),
]
NUL = pytest.mark.parametrize(("document", "field"), FIELDS, ids=lambda each: str(each)[:20])


def test_the_rows_of_the_case_are_refused_by_line_and_column() -> None:
    imported = import_bytes(CASE.read_bytes(), "visitor")

    assert imported.lines == [2]
    assert imported.refused == [(3, "visitor_id"), (4, "plan")]
    assert all("NUL character" in refusal.problem for refusal in imported.refusals)


def test_a_header_with_nul_is_refused_by_column() -> None:
    with pytest.raises(FileProblem, match="column 2 of the header contains a NUL character"):
        import_bytes(b"visitor_id,pl\0an\nv1,gold\n", "visitor")


@pytest.mark.parametrize("column", ["visitor_id", "account_id", "event", "anonymous_id"])
def test_json_lines_with_nul_in_an_id_are_refused_by_line_and_column(column: str) -> None:
    row = {"visitor_id": "v", "account_id": "a", "anonymous_id": "n", "event": "E", column: "x\0y"}

    imported = import_bytes(f"{json.dumps(row)}\n".encode(), "track", "jsonl")

    assert imported.refused == [(1, column)]
    assert "NUL character" in imported.refusals[0].problem


def test_an_object_in_the_gateways_form_is_refused_too() -> None:
    document = {**TRACK, "properties": {}, "visitor_id": "\0"}

    assert import_bytes(json.dumps(document).encode(), "track", "jsonl").refused == [(1, "visitor_id")]


def test_a_value_in_json_may_contain_nul() -> None:
    imported = import_bytes(b'{"visitor_id":"v","plan":"a\\u0000b"}\n', "visitor", "jsonl")

    assert [event.values for event in imported.events if isinstance(event, VisitorMetadata)] == [
        {"plan": "a\0b"}
    ]


ROWS = "visitor_id,plan\n" + "".join(f"v{number},gold\n" for number in range(1000))
CHINESE = "访客,计划\n" + "".join(f"客{number},黄金\n" for number in range(1000))
ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@pytest.mark.parametrize("text", [ROWS, CHINESE, "visitor_id\n"], ids=["ascii", "chinese", "one line"])
def test_files_in_another_encoding_are_refused_by_its_name(
    text: str, encoding: str, file_format: str
) -> None:
    if file_format == "jsonl":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in text.splitlines())
    name = encoding.upper()[:6]

    with pytest.raises(FileProblem, match=f"it is {name}; save it as UTF-8"):
        import_bytes(text.encode(encoding), "visitor", file_format)


@pytest.mark.parametrize("text", ["", "\n", "v", "visitor_id\n", "visitor_id,ñ\nv,1\n", "访客\n"])
def test_utf_8_is_not_taken_for_another_encoding(text: str) -> None:
    try:
        import_bytes(text.encode(), "visitor")
    except FileProblem as problem:
        assert "UTF" not in str(problem)  # noqa: PT017 - some have no header, which is another error


@NUL
def test_the_gateway_names_index_and_field(document: dict[str, Any], field: str) -> None:
    body = json.dumps([document, {**document, field: f"{document.get(field, '')}\0"}]).encode()

    with pytest.raises(DocumentError, match=f"{field}: holds a NUL character") as refused:
        read_by(native.read_events, json_documents.strict(body))

    assert (refused.value.index, refused.value.field) == (1, field)


@pytest.mark.parametrize("name", ["userId", "messageId", "event", "anonymousId"])
def test_a_segment_message_with_nul_in_an_id_is_set_aside(name: str) -> None:
    message = {"type": "track", "userId": "u", "anonymousId": "n", "messageId": "m", "event": "E", name: "\0"}

    reading = read_by(segment.FRONTS["/v1/batch"], {"batch": [message]})
    assert (reading.events, reading.set_aside) == ([], {segment.SetAside.MALFORMED: 1})


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("read", [json_documents.strict, json_documents.tolerant])
def test_a_body_in_another_encoding_is_refused_by_its_name(encoding: str, read: Any) -> None:
    with pytest.raises(
        DocumentError, match=f"body: is {encoding.upper()[:6]}, not UTF-8; send JSON as UTF-8"
    ):
        read(json.dumps(TRACK).encode(encoding))


@NUL
def test_a_publisher_refuses_the_event_and_says_which_field(document: dict[str, Any], field: str) -> None:
    told: list[PublisherError] = []
    values = {name: value for name, value in document.items() if name != "type"} | {field: "a\0b"}
    with Publisher(bootstrap_servers="127.0.0.1:1", on_error=told.append) as publisher:  # type: ignore[arg-type]
        match document["type"]:
            case "decision":
                taken = publisher.publish(DecisionEvent(occurred_at=0, **values))
            case "track":
                taken = publisher.publish(TrackEvent(event_id="e", occurred_at=0, **values))
            case "visitor":
                taken = publisher.visitor(**values)
            case _:
                taken = publisher.account(**values)
        assert not taken
        assert publisher.stats().refused == 1
        publisher.close(0)

    assert f"{field}: holds a NUL character" in str(told[0])


@pytest.mark.parametrize("user", ["v\0", "v"])
def test_a_decision_for_an_id_with_nul_is_refused(user: str) -> None:
    publisher = Publisher(bootstrap_servers="127.0.0.1:1")
    client = optimizely_client()
    publisher.attach(client)

    user_of(client, user).decide("banner")

    assert publisher.stats().refused == user.count("\0")
    publisher.close(0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"topic": "t\0"},
        {"service": "s\0"},
        {"environment": "\0"},
        {"properties": {"sasl.password": "a\0b"}},
        {"properties": {"sasl\0.password": "a"}},
    ],
)
def test_arguments_with_nul_are_refused(arguments: dict[str, Any]) -> None:
    """librdkafka reads a text only up to its first NUL: it would use half of a password, or another topic."""
    with pytest.raises(ValueError, match="NUL character"):
        Publisher(bootstrap_servers="127.0.0.1:1", **arguments)


def test_librdkafka_properties_and_secrets_with_nul_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL character"):
        KafkaSettings(properties={"sasl.password": "a\0b"})
    with pytest.raises(SettingsError, match="NUL character"):
        SecretSource("kafka.properties_files.sasl.password", Secret("a\0b"), ANY_TEXT).current()


def test_preview_reports_nul_and_utf_16_too() -> None:
    for content, said in (
        (json.dumps({**TRACK, "visitor_id": "\0"}).encode(), "visitor_id: holds a NUL character"),
        (json.dumps(TRACK).encode("utf-16-le"), "UTF-16"),
    ):
        result = CliRunner().invoke(flagpost, ["preview", "-"], input=content)
        assert result.exit_code == 1, result.output
        assert said in result.output


def test_a_byte_order_mark_is_skipped_for_libraries_that_write_one() -> None:
    body = b'\xef\xbb\xbf{"type": "track"}'
    assert json_documents.tolerant(body) == {"type": "track"}
    with pytest.raises(DocumentError, match="is not JSON"):
        json_documents.strict(body)
