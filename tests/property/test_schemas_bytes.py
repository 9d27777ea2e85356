"""Any event becomes the bytes of Avro, and is decoded again; any bytes become an event or a DecodeError."""

import io
import random
from dataclasses import asdict, fields

from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from flagpost_schemas import (
    AccountMetadata,
    Context,
    DecisionEvent,
    DecodeError,
    Decoder,
    Event,
    MetadataGroup,
    Source,
    TrackEvent,
    VisitorMetadata,
    encode_body,
    encode_confluent,
    encode_decision,
    encode_single_object,
    schema_of,
)

texts = st.text(max_size=80)
longs = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | longs | st.floats(allow_nan=False) | texts
optional_texts = st.none() | texts
scalar_maps = st.dictionaries(texts, scalars, max_size=5)
shared = {
    "event_id": texts,
    "occurred_at": longs,
    "context": st.none()
    | st.builds(
        Context, ip=optional_texts, user_agent=optional_texts, url=optional_texts, locale=optional_texts
    ),
    "consent": st.none() | st.dictionaries(texts, st.booleans(), max_size=3),
    "source": st.none() | st.builds(Source, service=optional_texts, sdk=optional_texts),
}
metadata = {
    "group": st.sampled_from(MetadataGroup),
    "values": st.dictionaries(texts, scalars | st.lists(texts, max_size=4), max_size=5),
}
decisions = st.builds(
    DecisionEvent,
    **shared,
    account_id=optional_texts,
    visitor_id=texts,
    flag_key=texts,
    enabled=st.booleans(),
    variation_key=optional_texts,
    rule_key=optional_texts,
    decision_event_dispatched=st.booleans(),
    experiment_id=optional_texts,
    variation_id=optional_texts,
    attributes=scalar_maps,
)
events: st.SearchStrategy[Event] = st.one_of(
    decisions,
    st.builds(
        TrackEvent,
        **shared,
        account_id=optional_texts,
        visitor_id=optional_texts,
        anonymous_id=optional_texts,
        event=texts,
        properties=scalar_maps,
    ),
    st.builds(VisitorMetadata, **shared, **metadata, account_id=optional_texts, visitor_id=texts),
    st.builds(AccountMetadata, **shared, **metadata, account_id=texts),
)


def _decoder() -> Decoder:
    decoder = Decoder()
    for number, event_type in enumerate((DecisionEvent, TrackEvent, VisitorMetadata, AccountMetadata)):
        decoder.add_schema(number, schema_of(event_type).text)
    return decoder


DECODER = _decoder()


@given(events)
def test_an_encoded_event_is_decoded_again(event: Event) -> None:
    assert DECODER.decode(encode_single_object(event)) == event


@given(events)
def test_the_body_is_what_fastavro_writes(event: Event) -> None:
    body = io.BytesIO()
    schemaless_writer(body, schema_of(type(event)).parsed, asdict(event))

    assert encode_body(event) == body.getvalue()


@given(decisions)
def test_a_decision_from_its_fields_has_the_same_bytes(event: DecisionEvent) -> None:
    assert encode_decision(**{each.name: getattr(event, each.name) for each in fields(event)}) == encode_body(
        event
    )


def damage(value: bytes, source: random.Random) -> bytes:
    """Replace, insert and delete a few bytes, mostly after the header."""
    damaged = bytearray(value)
    for _ in range(source.randint(1, 6)):
        place = (
            source.randrange(len(damaged) + 1)
            if source.random() < 0.2
            else source.randint(5, len(damaged) + 5)
        )
        width = source.randint(0, 3)
        damaged[place : place + width] = source.choice(
            [
                source.randbytes(width),
                source.randbytes(1),
                b"\xff" * 9 + b"\x01",
                b"\xfe" + b"\xff" * 8 + b"\x01",
                b"",
            ]
        )
    return bytes(damaged)


def _decodes_or_says_why(value: bytes) -> None:
    outcome: Event | DecodeError
    try:
        outcome = DECODER.decode(value)
    except DecodeError as error:
        outcome = error
    assert isinstance(outcome, Event) or str(outcome)


@given(events, st.integers(0, 3), st.booleans(), st.randoms(use_true_random=False))
def test_damaged_events_raise_nothing_but_decode_errors(
    event: Event, schema_id: int, confluent: bool, source: random.Random
) -> None:
    value = encode_confluent(event, schema_id) if confluent else encode_single_object(event)

    _decodes_or_says_why(damage(value, source))


@given(st.sampled_from([b"", b"\xc3\x01", b"\x00", b"\x00\x00\x00\x00\x00"]), st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_decode_errors(start: bytes, rest: bytes) -> None:
    _decodes_or_says_why(start + rest)
