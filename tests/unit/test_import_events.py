"""How a row becomes an event: the meaning of its columns, its id, and the events that the consumer would refuse."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from flagpost_consumer.settings import Settings
from flagpost_schemas import (
    AccountMetadata,
    Context,
    MetadataGroup,
    TrackEvent,
    VisitorMetadata,
    partition_key,
)
from imported_rows import Imported, import_bytes

NOW_MS = time.time_ns() // 1_000_000
SETTINGS = Settings()


def jsonl(*rows: dict[str, object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def ids(imported: Imported) -> list[str]:
    return [event.event_id for event in imported.events]


@pytest.mark.parametrize("name", ["visitor_id", "visitorId", "Visitor ID", "VISITOR-ID", "id"])
def test_the_id_of_a_visitor_is_found_by_its_name(name: str) -> None:
    (event,) = import_bytes(f"plan,{name}\ngold,v1\n".encode(), "visitor").events
    assert isinstance(event, VisitorMetadata)
    assert (event.visitor_id, event.group, event.values) == ("v1", MetadataGroup.CUSTOM, {"plan": "gold"})
    assert NOW_MS <= event.occurred_at <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("name", ["account_id", "accountId", "id"])
def test_the_id_of_an_account_is_found_by_its_name(name: str) -> None:
    imported = import_bytes(f"{name},arr:integer\nacme,100\n".encode(), "account", group="agent")
    (event,) = imported.events
    assert isinstance(event, AccountMetadata)
    assert (event.account_id, event.group, event.values) == ("acme", MetadataGroup.AGENT, {"arr": 100})
    assert imported.records[0][1].key == b"acme" == partition_key(event)


def test_the_better_name_wins_and_the_other_is_a_field() -> None:
    (event,) = import_bytes(b"id,visitor_id,account\n5,v1,acme\n", "visitor").events
    assert isinstance(event, VisitorMetadata)
    assert (event.visitor_id, event.values) == ("v1", {"id": "5", "account": "acme"})


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_the_id_column_can_be_named(file_format: str) -> None:
    content = b"visitor_id,email\nv1,a@b.example\n"
    lines = jsonl({"visitor_id": "v1", "email": "a@b.example"})
    imported = import_bytes(
        content if file_format == "csv" else lines, "visitor", file_format, id_column="email"
    )
    (event,) = imported.events
    assert isinstance(event, VisitorMetadata)
    assert (event.visitor_id, event.values) == ("a@b.example", {"visitor_id": "v1"})


def test_an_id_column_that_is_not_there_is_named() -> None:
    imported = import_bytes(
        jsonl({"visitor_id": "v1", "plan": "gold"}), "visitor", "jsonl", id_column="email"
    )
    assert imported.refused == [(1, "email")]


def test_a_track_event() -> None:
    content = (
        f"visitorId,anonymousId,Event,timestamp,accountId,total:number,tags:list\n"
        f"v1,a1,Order Completed,{NOW_MS - 5000},acme,9.5,a|b\n"
    )
    (event,) = import_bytes(content.encode(), "track").events
    assert isinstance(event, TrackEvent)
    assert event == TrackEvent(
        event_id=event.event_id,
        occurred_at=NOW_MS - 5000,
        account_id="acme",
        visitor_id="v1",
        anonymous_id="a1",
        event="Order Completed",
        properties={"total": 9.5, "tags": "a,b"},
    )


def test_track_events_of_json_lines_are_flattened() -> None:
    rows = jsonl({"visitor_id": 17, "event": "e", "cart": {"total": 5}, "items": [{"a": 1}, {"a": 2}]})
    (event,) = import_bytes(rows, "track", "jsonl").events
    assert isinstance(event, TrackEvent)
    assert event.visitor_id == "17"
    assert event.properties == {"cart_total": 5, "items_count": 2}
    assert NOW_MS <= event.occurred_at <= time.time_ns() // 1_000_000


def test_events_in_the_gateways_form_are_accepted_too() -> None:
    rows = jsonl(
        {
            "visitor_id": "v1",
            "values": {"plan": "gold"},
            "account_id": "acme",
            "consent": {"analytics": True},
        },
        {"type": "visitor", "event_id": "mine", "visitor_id": "v2", "values": {}, "occurred_at": NOW_MS},
        {"type": "track", "visitor_id": "v3", "values": {}},
        {"visitor_id": "v4", "values": {"plan": "gold"}, "plan": "gold"},
        {"visitor_id": "v5", "values": {"a": {"b": 2**63}}},
    )
    imported = import_bytes(rows, "visitor", "jsonl", group="agent")
    (event,) = imported.events
    assert isinstance(event, VisitorMetadata)
    assert (event.group, event.values, event.account_id) == (MetadataGroup.AGENT, {"plan": "gold"}, "acme")
    assert event.consent == {"analytics": True}
    assert imported.refused == [(2, None), (3, "type"), (4, "plan"), (5, "values.a_b")]


def test_an_event_of_the_gateways_form_keeps_its_id() -> None:
    rows = jsonl({"event_id": "mine", "visitor_id": "v1", "event": "e", "properties": {"a": 1}})
    assert ids(import_bytes(rows, "track", "jsonl")) == ["mine"]


def test_the_same_row_is_the_same_event() -> None:
    once = ids(import_bytes(b"visitor_id,a,b:integer\nv1,x,1\nv1,x,1\nv2,x,1\nv1,y,1\n", "visitor"))
    assert once[0] == once[1]
    assert len(set(once)) == 3
    assert all(len(event_id) == 39 and event_id.startswith("import-") for event_id in once)
    again = ids(import_bytes(b"b:integer;visitorId;a\n1;v1;x\n", "visitor"))
    as_json = ids(import_bytes(jsonl({"a": "x", "id": "v1", "b": 1}), "visitor", "jsonl"))
    assert again == as_json == once[:1]


def test_rows_that_differ_in_anything_are_different_events() -> None:
    moment = NOW_MS - 1000
    files: list[tuple[bytes, str, str | None]] = [
        (b"id,a\nv1,1\n", "visitor", None),
        (b"id,a:integer\nv1,1\n", "visitor", None),
        (b"id,a\nv1,1\n", "visitor", "agent"),
        (b"id,a\nv1,1\n", "account", None),
        (b"id,b\nv1,1\n", "visitor", None),
        (f"id,a,occurred_at\nv1,1,{moment}\n".encode(), "visitor", None),
        (f"id,a,occurred_at\nv1,1,{moment + 1}\n".encode(), "visitor", None),
        (b"visitor_id,a,event\nv1,1,e\n", "track", None),
        (b"visitor_id,a,event\nv1,1,f\n", "track", None),
    ]
    found = [ids(import_bytes(content, kind, group=group)) for content, kind, group in files]
    assert len(set(itertools.chain(*found))) == len(files)


def test_a_time_means_the_same_in_every_notation() -> None:
    in_csv = [
        ids(import_bytes(f"id,a,occurred_at\nv1,x,{moment}\n".encode(), "visitor"))
        for moment in ("2026-11-20T10:00:00Z", "2026-11-20T12:00:00+02:00", "1795168800000")
    ]
    in_json = [
        ids(import_bytes(jsonl({"id": "v1", "a": "x", "occurred_at": moment}), "visitor", "jsonl"))
        for moment in ("2026-11-20T10:00:00.000Z", 1_795_168_800_000)
    ]
    assert [*in_csv, *in_json] == [in_csv[0]] * 5


@pytest.mark.parametrize(
    ("row", "column", "told"),
    [
        (b",gold", "visitor_id", "is empty; every row needs it"),
        (b" v1,gold", "visitor_id", "white space"),
        (b"v1\xc2\xa0,gold", "visitor_id", "white space"),
        (b"v" * 1001 + b",gold", "visitor_id", "has 1,001 characters; an id may have at most 1,000"),
        (b"v1,", None, "values holds nothing that can be sent; publish at least one field"),
    ],
)
def test_metadata_that_the_consumer_would_refuse(row: bytes, column: str | None, told: str) -> None:
    imported = import_bytes(b"visitor_id,plan\n" + row + b"\nv2,gold\n", "visitor")
    assert imported.refused == [(2, column)]
    assert told in imported.refusals[0].problem
    assert imported.lines == [3]


@pytest.mark.parametrize(
    ("row", "column", "told"),
    [
        ({"visitor_id": None, "plan": "a"}, "visitor_id", "must be a text"),
        ({"visitor_id": 1.5, "plan": "a"}, "visitor_id", "must be a text"),
        ({"visitor_id": True, "plan": "a"}, "visitor_id", "must be a text"),
        ({"visitor_id": "", "plan": "a"}, "visitor_id", "is empty"),
        ({"plan": "a"}, "visitor_id", "is not among the columns"),
        ({}, "visitor_id", "is not among the columns"),
        ({"visitor_id": "v"}, None, "nothing that can be sent"),
        ({"visitor_id": "v", "big": 2**63}, "big", "must fit in 64 bits"),
        ({"visitor_id": "v", "plan": "a", "occurred_at": "soon"}, "occurred_at", "is not a time"),
        ({"visitor_id": "v", "plan": "a", "occurred_at": None}, "occurred_at", "must be epoch milliseconds"),
        ({"visitor_id": "v", "plan": "a", "occurred_at": -1}, "occurred_at", "is before 1970"),
        ({"visitor_id": "v", "plan": "a", "occurred_at": NOW_MS + 10**9}, "occurred_at", "ahead of"),
    ],
)
def test_json_that_the_consumer_would_refuse(row: dict[str, object], column: str | None, told: str) -> None:
    imported = import_bytes(jsonl(row, {"id": "v2", "plan": "gold"}), "visitor", "jsonl")
    assert imported.refused == [(1, column)]
    assert told in imported.refusals[0].problem
    assert imported.lines == [2]


@pytest.mark.parametrize(
    ("row", "column", "told"),
    [
        (f"v1,,{NOW_MS}", "event", "is empty"),
        ("v1,e,", "at", "is empty; every row needs it"),
        ("v1,e,soon", "at", "is not a time"),
        (f"v1,e,{NOW_MS - 8 * 86_400_000}", "at", "older than delivery.max_age_seconds"),
        (f"v1,e,{NOW_MS + 3_600_000}", "at", "ahead of the consumer's clock"),
        (f",e,{NOW_MS}", "visitor_id", "is empty; fill it in, or import anonymous ids"),
    ],
    ids=["no name", "no time", "no such time", "too old", "in the future", "no visitor"],
)
def test_events_that_the_consumer_would_refuse(row: str, column: str, told: str) -> None:
    content = f"visitor_id,event,occurred_at\n{row}\nv2,e,{NOW_MS}\n"
    imported = import_bytes(content.encode(), "track")
    named = "occurred_at" if column == "at" else column
    assert imported.refused == [(2, named)]
    assert told in imported.refusals[0].problem
    assert imported.lines == [3]


def test_a_refused_column_is_named_as_in_the_file() -> None:
    content = f"Visitor ID,Event,Timestamp\nv1,e,1\n,e,{NOW_MS}\nv2,,{NOW_MS}\n"
    imported = import_bytes(content.encode(), "track")
    assert imported.refused == [(2, "Timestamp"), (3, "Visitor ID"), (4, "Event")]


def test_anonymous_events_go_where_the_settings_send_them() -> None:
    content = b"anonymous_id,event\na1,e\n"
    assert import_bytes(content, "track").refused == [(2, "visitor_id")]
    for anonymous in ("as_visitor", "as_anonymous"):
        settings = Settings.model_validate({"mapping": {"anonymous": anonymous}})
        imported = import_bytes(content, "track", settings=settings)
        (event,) = imported.events
        assert isinstance(event, TrackEvent)
        assert (event.visitor_id, event.anonymous_id) == (None, "a1")
        assert imported.records[0][1].key == b"a1"


def test_required_consent_is_checked_by_the_import() -> None:
    settings = Settings.model_validate({"consent": {"required": True}})
    rows = jsonl(
        {"visitor_id": "v1", "plan": "gold"},
        {"visitor_id": "v1", "values": {"plan": "gold"}, "consent": {"analytics": True}},
        {"visitor_id": "v1", "values": {"plan": "gold"}, "consent": {"analytics": False}},
    )
    imported = import_bytes(rows, "visitor", "jsonl", settings=settings)
    assert imported.lines == [2]
    assert [refusal.problem for refusal in imported.refusals] == [
        "the event says nothing about consent to analytics, which is required",
        "consent to analytics is denied",
    ]


def test_properties_that_the_policy_rejects_are_refused_by_the_import() -> None:
    settings = Settings.model_validate({"mapping": {"properties_policy": "reject"}})
    content = b"visitor_id,event,Order Total\nv1,e,5\n"
    imported = import_bytes(content, "track", settings=settings)
    assert "rule name_characters" in imported.refusals[0].problem
    assert import_bytes(content, "track").lines == [2]


def test_pendos_own_key_is_not_needed_to_import() -> None:
    assert Settings().pendo.integration_key_source is None
    assert import_bytes(b"id,a\nv1,x\n", "visitor").lines == [2]


@pytest.mark.parametrize("missing", ["event", "visitor_id"])
def test_json_rows_of_different_shapes_are_judged_one_by_one(missing: str) -> None:
    whole: dict[str, object] = {"visitor_id": "v1", "event": "e"}
    short = {name: value for name, value in whole.items() if name != missing}
    imported = import_bytes(jsonl(whole, short, whole), "track", "jsonl")
    assert (imported.lines, imported.refused) == ([1, 3], [(2, missing)])


# The columns of the tools that sync tables


def test_the_sync_tools_columns_are_the_events_context_and_properties() -> None:
    content = (
        "visitorId,event,timestamp,accountId,context_ip,context_user_agent,context_url,context_title,"
        "properties,plan\n"
        f'v1,Signed Up,{NOW_MS},acme,203.0.113.7,Mozilla/5.0,https://shop.test/,Cart,"{{""a"":{{""b"":1}},""plan"":""old""}}",pro\n'
        f"v2,Signed Up,{NOW_MS},,,,,,,\n"
    )
    first, second = import_bytes(content.encode(), "track").events
    assert isinstance(first, TrackEvent)
    assert isinstance(second, TrackEvent)
    assert first.context == Context(
        ip="203.0.113.7", user_agent="Mozilla/5.0", url="https://shop.test/", title="Cart"
    )
    assert first.account_id == "acme"
    assert first.properties == {"a_b": 1, "plan": "pro"}, "a column of its own goes before"
    assert (second.context, second.properties) == (None, {})


def test_rows_of_json_lines_may_have_the_same_columns() -> None:
    row: dict[str, object] = {
        "visitorId": "v1",
        "event": "e",
        "contextIp": "203.0.113.7",
        "properties": '{"a": 1}',
    }
    (event,) = import_bytes(jsonl(row), "track", "jsonl").events
    assert isinstance(event, TrackEvent)
    assert (event.context, event.properties) == (Context(ip="203.0.113.7"), {"a": 1})


@pytest.mark.parametrize("cell", ["x", "[1]", "1", '{"a":', '{"a": 18446744073709551615}'])
def test_a_row_whose_properties_are_not_a_json_object_is_refused(cell: str) -> None:
    quoted = cell.replace('"', '""')
    content = f'visitor_id,event,properties\nv1,e,"{quoted}"\nv2,e,"{{""a"":1}}"\n'
    imported = import_bytes(content.encode(), "track")
    assert imported.lines == [3]
    assert [line for line, _ in imported.refused] == [2]


def test_the_account_of_a_visitors_row_is_not_a_field() -> None:
    (event,) = import_bytes(b"visitorId,accountId,plan\nv1,acme,gold\n", "visitor").events
    assert isinstance(event, VisitorMetadata)
    assert (event.account_id, event.values) == ("acme", {"plan": "gold"})


def test_bytes_that_are_not_utf8_are_reported_with_their_column_also_in_a_context() -> None:
    content = b"visitor_id,event,context_title\nv1,e,\xff\n"
    assert import_bytes(content, "track").refused == [(2, "context_title")]
