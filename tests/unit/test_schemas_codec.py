"""Both wire formats, and the error for each kind of damage."""

import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from flagpost_schemas import (
    EVENT_TYPES,
    AccountMetadata,
    Context,
    DecisionEvent,
    Decoder,
    EncodeError,
    Event,
    MetadataGroup,
    SchemaError,
    SchemaNeeded,
    Source,
    TrackEvent,
    UndecodableRecord,
    UnknownSchema,
    VisitorMetadata,
    decode,
    encode_body,
    encode_confluent,
    encode_single_object,
    fingerprints,
    partition_key,
    schema_of,
    variation_as_sent,
)

DECISION = DecisionEvent(
    event_id="0199c2a4-7c00-7000-8000-000000000001",
    occurred_at=1_700_000_000_123,
    account_id="acme",
    context=Context(ip="192.0.2.1", url="https://shop.example/"),
    consent={"analytics": True, "ads": False},
    source=Source(service="checkout", sdk="optimizely-sdk", sdk_version="5.7.0"),
    visitor_id="visitor-1",
    flag_key="checkout",
    enabled=True,
    variation_key="treatment",
    rule_key="rule",
    decision_event_dispatched=True,
    experiment_id="9300",
    variation_id="9301",
    attributes={"plan": "gold", "age": 41, "score": 0.5, "beta": True, "gone": None},
)
EVENTS: list[Event] = [
    DECISION,
    TrackEvent(event_id="t", occurred_at=0, anonymous_id="anonym", event="page", properties={"ü": "é"}),
    VisitorMetadata(
        event_id="v", occurred_at=-1, visitor_id="v1", values={"plan": "gold", "tags": ["a", "b"], "none": []}
    ),
    AccountMetadata(
        event_id="a",
        occurred_at=2**62,
        account_id="acme",
        group=MetadataGroup.AGENT,
        values={"seats": -70_000},
    ),
]
BODY = encode_single_object(DECISION)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_both_formats_return_the_same_event(event: Event) -> None:
    decoder = Decoder()
    decoder.add_schema(7, schema_of(type(event)).text)

    assert decoder.decode(encode_single_object(event)) == event
    assert decoder.decode(encode_confluent(event, 7)) == event


@pytest.mark.parametrize("exponent", range(64))
def test_lengths_and_numbers_of_every_size_are_decoded_unchanged(exponent: int) -> None:
    numbers = [2**exponent - 1, -(2**exponent), 2 ** max(0, exponent - 1)]
    text = "x" * (2 ** min(exponent, 17) - 1)
    event = TrackEvent(event_id="t", occurred_at=numbers[0], event=text, properties={"n": numbers[1]})

    for each in (event, replace(event, event=text + "x", occurred_at=numbers[2])):
        assert Decoder().decode(encode_single_object(each)) == each


def test_more_recurring_values_than_the_cache_keeps_are_encoded_correctly() -> None:
    events = [replace(DECISION, rule_key=f"rule {number % 1500}") for number in range(3_000)]

    values = [encode_single_object(event) for event in events]

    assert [Decoder().decode(value) for value in values[::50]] == events[::50]


def test_the_bytes_of_a_release_do_not_change() -> None:
    track = TrackEvent(event_id="e", occurred_at=1, visitor_id="v", event="page", properties={"n": 1})

    assert encode_single_object(track).hex(" ") == (
        "c3 01 4a fa e3 bb db 26 26 01 02 65 02 00 00 00 00 02 02 76 00 08 70 61 67 65 02 02 6e 04 02 00"
    )
    assert encode_confluent(track, 258)[:5] == b"\x00\x00\x00\x01\x02"


def test_maps_keep_the_order_of_the_wire() -> None:
    event = replace(DECISION, attributes=dict.fromkeys("zyxabc", 1))

    decoded = Decoder().decode(encode_single_object(event))

    assert isinstance(decoded, DecisionEvent)
    assert list(decoded.attributes) == list("zyxabc")


def test_the_classes_have_the_fields_of_the_records_in_their_order() -> None:
    for event_type in EVENT_TYPES:
        schema = json.loads(schema_of(event_type).text)
        assert [field["name"] for field in schema["fields"]] == [field.name for field in fields(event_type)]
        assert schema_of(event_type).full_name == f"io.flagpost.v1.{event_type.__name__}"


def test_events_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DECISION.flag_key = "other"  # type: ignore[misc]


def test_every_written_schema_is_among_those_read() -> None:
    assert {fingerprints()[schema_of(event_type).fingerprint] for event_type in EVENT_TYPES} == set(
        EVENT_TYPES
    )


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (DECISION, b"visitor-1"),
        (EVENTS[1], b"anonym"),
        (TrackEvent(event_id="t", occurred_at=0, visitor_id="ü", anonymous_id="b", event="e"), "ü".encode()),
        (TrackEvent(event_id="t", occurred_at=0, visitor_id="", anonymous_id="b", event="e"), b"b"),
        (TrackEvent(event_id="t", occurred_at=0, event="e"), None),
        (EVENTS[2], b"v1"),
        (EVENTS[3], b"acme"),
    ],
)
def test_the_partition_key_is_the_visitor(event: Event, key: bytes | None) -> None:
    assert partition_key(event) == key


@pytest.mark.parametrize(
    ("enabled", "variation", "sent"),
    [(True, "treatment", "treatment"), (True, None, None), (False, "treatment", "off"), (False, None, "off")],
)
def test_a_disabled_flag_is_sent_as_off(enabled: bool, variation: str | None, sent: str | None) -> None:
    assert variation_as_sent(replace(DECISION, enabled=enabled, variation_key=variation)) == sent


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"event_id": None}, "event_id", "NoneType where a str"),
        ({"occurred_at": True}, "occurred_at", "bool where an int"),
        ({"occurred_at": 2**63}, "occurred_at", "beyond 64 bits"),
        ({"occurred_at": 1.5}, "occurred_at", "float where an int"),
        ({"enabled": "no"}, "enabled", "str where a bool"),
        ({"enabled": 1}, "enabled", "int where a bool"),  # equal to True, which the same field had before
        ({"flag_key": ["secret"]}, "flag_key", "list where a str"),
        ({"rule_key": b"secret"}, "rule_key", "bytes where null or string"),
        ({"visitor_id": "\ud800secret"}, "visitor_id", "lone surrogates"),
        ({"account_id": 7}, "account_id", "int where null or string"),
        ({"context": {"ip": "secret"}}, "context", "dict without ip"),
        ({"source": Source(sdk=5)}, "source.sdk", "int where null or string"),  # type: ignore[arg-type]
        ({"consent": {"ads": 1}}, "consent.*", "int where a bool"),
        ({"attributes": None}, "attributes", "NoneType where a dict"),
        ({"attributes": {"secret": object()}}, "attributes.*", "object where null or boolean"),
        ({"attributes": {"big": 2**64}}, "attributes.*", "beyond 64 bits"),
        ({"attributes": {5: "secret"}}, "attributes", "int where a str"),
    ],
)
def test_an_encoding_error_names_field_and_type_but_never_the_value(
    changes: dict[str, object], field: str, problem: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_body(replace(DECISION, **changes))  # type: ignore[arg-type]

    assert (caught.value.record, caught.value.field) == ("DecisionEvent", field)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_metadata_takes_lists_of_strings_and_its_two_groups_only() -> None:
    metadata = VisitorMetadata(event_id="v", occurred_at=0, visitor_id="v")

    with pytest.raises(EncodeError, match="int where a str"):
        encode_body(replace(metadata, values={"tags": [1]}))  # type: ignore[list-item]
    with pytest.raises(EncodeError, match="one of custom, agent"):
        encode_body(replace(metadata, group="other"))  # type: ignore[arg-type]


class Uneven(dict[str, Any]):
    """A dict of the application's that does not list what its length says."""

    def __init__(self, *listed: tuple[str, Any]) -> None:
        super().__init__(a=1)
        self.listed = listed

    def items(self) -> Any:
        return self.listed


class UnevenList(list[str]):
    """A list of the same kind."""

    def __iter__(self) -> Iterator[str]:
        return iter(("x", "y"))


@pytest.mark.parametrize("listed", [(), (("b", 1),), (("a", 1), ("b", 2))])
def test_a_map_is_written_with_the_number_of_its_items_whatever_its_length(
    listed: tuple[tuple[str, Any], ...],
) -> None:
    """Before, the body could not be decoded, and the event was lost as a dead letter."""
    event = TrackEvent(event_id="e", occurred_at=1, visitor_id="v", event="x", properties=Uneven(*listed))
    decoded = Decoder().decode(encode_single_object(event))
    assert decoded == replace(event, properties=dict(listed))


def test_a_list_is_written_with_the_number_of_its_items_whatever_its_length() -> None:
    event = VisitorMetadata(event_id="e", occurred_at=1, visitor_id="v", values={"l": UnevenList(["x"])})
    decoded = Decoder().decode(encode_single_object(event))
    assert decoded == replace(event, values={"l": ["x", "y"]})


def test_an_object_that_is_no_event_is_refused() -> None:
    with pytest.raises(EncodeError, match="not an event; give one of DecisionEvent"):
        encode_body("DecisionEvent")  # type: ignore[arg-type]


@pytest.mark.parametrize("schema_id", [-1, 2**31, 2**32])
def test_an_id_that_no_registry_returns_is_refused(schema_id: int) -> None:
    with pytest.raises(ValueError, match=f"schema id {schema_id} is impossible"):
        encode_confluent(DECISION, schema_id)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b'{"type":"decision"}', "begins with 7b 22"),
        (b"\xc3", "begins with c3"),
        (BODY[:6], "cut short: 6 bytes"),
        (BODY[:-1], "cut short"),
        (BODY[:10], "cut short"),
        (BODY + b"\x00", "bytes are left"),
        (b"\x00\x00\x00", "cut short: 3 bytes"),
        (BODY.replace(b"visitor-1", b"visitor-\xff"), "not valid UTF-8"),
        (BODY.replace(b"\x08gold", b"\x0egold"), "body"),
        (BODY.replace(b"\x02\x08acme", b"\x7e\x08acme"), "branch or symbol"),
        (BODY[:10] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut short"),
    ],
)
def test_damage_is_undecodable_and_says_how(value: bytes | None, says: str) -> None:
    with pytest.raises(UndecodableRecord, match=says):
        Decoder().decode(value)


def test_an_unknown_fingerprint_is_shown_as_other_tools_show_it() -> None:
    with pytest.raises(UnknownSchema, match=r"fingerprint 0807060504030201 .*upgrade Flagpost"):
        Decoder().decode(b"\xc3\x01" + bytes(range(1, 9)) + b"body")


def test_a_confluent_id_is_asked_for_once() -> None:
    decoder = Decoder()
    value = encode_confluent(DECISION, 12)

    with pytest.raises(SchemaNeeded) as caught:
        decoder.decode(value)
    decoder.add_schema(caught.value.schema_id, schema_of(DecisionEvent).text)

    assert decoder.decode(value) == DECISION


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("syntax = 'proto3';", "not an Avro schema"),
        ('"string"', "not the schema of an Avro record"),
        ('{"type":"record","name":"x.Other","fields":[]}', "x.Other is not one of Flagpost's"),
        ('{"type":"record","name":"DecisionEvent","fields":[]}', "DecisionEvent is not one of Flagpost's"),
        ("[" * 100_000, "not an Avro schema"),
        (
            '{"type":"record","name":"a.N","fields":[{"name":"next","type":["null","a.N"]}]}',
            "contains itself",
        ),
        (
            '{"type":"record","name":"a.N","fields":[{"name":"l","type":{"type":"array","items":"null"}}]}',
            "take no bytes",
        ),
        (
            (
                '{"type":"record","name":"a.N","fields":[{"name":"l","type":{"type":"array","items":'
                '{"type":"record","name":"E","fields":[]}}}]}'
            ),
            "take no bytes",
        ),
    ],
)
def test_a_registry_schema_that_is_not_ours_is_reported_at_decoding(text: str, says: str) -> None:
    decoder = Decoder()
    decoder.add_schema(3, text)

    with pytest.raises(UnknownSchema, match=f"schema id 3: .*{says}"):
        decoder.decode(encode_confluent(DECISION, 3))


def test_a_refused_id_says_why() -> None:
    decoder = Decoder()
    decoder.refuse_schema(4, "the registry does not know it")

    with pytest.raises(UnknownSchema, match="schema id 4: the registry does not know it"):
        decoder.decode(encode_confluent(DECISION, 4))


def test_refused_ids_are_remembered_within_a_bound_and_push_out_no_schema() -> None:
    """Before the fix, 5,000 refused ids pushed out the schemas in use, which were requested again."""
    decoder = Decoder()
    decoder.add_schema(7, schema_of(DecisionEvent).text)
    for schema_id in range(1_000, 21_000):
        decoder.refuse_schema(schema_id, "x" * 10_000)

    assert len(decoder._refused) == 10_000
    assert {len(why) for why in decoder._refused.values()} == {220}
    with pytest.raises(SchemaNeeded):
        decoder.decode(encode_confluent(DECISION, 1_000))
    with pytest.raises(UnknownSchema):
        decoder.decode(encode_confluent(DECISION, 20_999))
    assert decoder.decode(encode_confluent(DECISION, 7)) == DECISION


def test_schemas_are_remembered_within_a_bound_of_number_and_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "_MAX_SCHEMAS", 20)
    monkeypatch.setattr(decode, "_MAX_SCHEMA_CHARACTERS", 20_000)
    text = schema_of(TrackEvent).text
    decoder = Decoder()
    for schema_id in range(30):
        assert decoder.add_schema(
            schema_id, '{"type":"record","name":"io.flagpost.v1.TrackEvent","fields":[]}'
        )
    assert list(decoder._by_id) == list(range(10, 30))
    for schema_id in range(30, 50):
        assert decoder.add_schema(schema_id, text)
    assert 20_000 - len(text) < decoder._characters <= 20_000
    assert len(decoder._by_id) < 20
    assert decoder.schema_needed(encode_confluent(DECISION, 49)) is None
    assert decoder.schema_needed(encode_confluent(DECISION, 30)) == 30


def test_a_forgotten_schema_is_needed_again() -> None:
    decoder = Decoder()
    decoder.refuse_schema(4, "unknown")
    decoder.add_schema(5, schema_of(DecisionEvent).text)
    for schema_id in (4, 5, 6):
        decoder.forget_schema(schema_id)
        with pytest.raises(SchemaNeeded):
            decoder.decode(encode_confluent(DECISION, schema_id))
    assert decoder._characters == 0


def test_the_newer_of_two_answers_about_an_id_holds() -> None:
    decoder = Decoder()
    decoder.refuse_schema(4, "unknown")
    assert decoder.add_schema(4, schema_of(DecisionEvent).text)
    assert decoder.decode(encode_confluent(DECISION, 4)) == DECISION
    assert not decoder.add_schema(4, "{}")
    with pytest.raises(UnknownSchema):
        decoder.decode(encode_confluent(DECISION, 4))


@pytest.mark.parametrize("schema_id", [2**31, 2**32 - 1])
def test_an_impossible_id_is_unknown_without_a_request(schema_id: int) -> None:
    """Before the fix, a record of five bytes, `00 FF FF FF FF`, caused requests to the registry without end."""
    value = b"\x00" + schema_id.to_bytes(4, "big")
    decoder = Decoder()
    assert decoder.schema_needed(value) is None
    with pytest.raises(UnknownSchema, match=f"schema id {schema_id} is impossible"):
        decoder.decode(value)
    with pytest.raises(SchemaNeeded):
        decoder.decode(b"\x00\x7f\xff\xff\xff")


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00\x00", encode_single_object(DECISION)])
def test_a_value_that_is_not_in_confluents_format_needs_no_schema(value: bytes | None) -> None:
    assert Decoder().schema_needed(value) is None


def test_an_extra_schema_must_be_one_of_ours() -> None:
    with pytest.raises(SchemaError, match=r"x\.Other is not one of"):
        Decoder(['{"type":"record","name":"x.Other","fields":[]}'])
