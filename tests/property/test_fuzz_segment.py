"""Any JSON, much of it close to Segment's, is read as events and reasons, or as one error that says where."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagpost_publisher.gateway.fronts import DocumentError, Reading
from flagpost_publisher.gateway.segment.mapping import KINDS
from flagpost_schemas import Decoder, encode_single_object, partition_key
from flagpost_schemas.times import read_time_ms
from fronts_reading import read_batch, read_call

RECEIVED = 1_800_000_000_000

TEXTS = st.text(st.characters(categories=["L", "N", "P", "Z", "S", "Cs", "Cc"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats()
    | TEXTS
    | st.text("m", min_size=120, max_size=140)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
MOMENTS = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | JSON


def near(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that have some of these members, or anything at all."""
    return st.fixed_dictionaries({}, optional=members) | JSON


CONTEXT = near(
    ip=JSON,
    userAgent=JSON,
    locale=JSON,
    groupId=JSON,
    page=near(url=JSON, title=JSON, referrer=JSON),
    traits=near(accountId=JSON),
    library=near(name=JSON, version=JSON),
    consent=near(categoryPreferences=st.dictionaries(TEXTS, JSON, max_size=3)),
)
INTEGRATIONS = st.dictionaries(st.sampled_from(["Pendo", "All", "all", "Other"]), SCALARS, max_size=2) | JSON
GOOD: dict[str, dict[str, Any]] = {
    "track": {"type": "track", "userId": "u", "event": "e"},
    "page": {"type": "page", "anonymousId": "a"},
    "screen": {"type": "screen", "userId": 7},
    "identify": {"type": "identify", "userId": "u", "traits": {"plan": "pro"}},
    "group": {"type": "group", "groupId": "g", "traits": {"size": 1}},
    "alias": {"type": "alias"},
}
VALUES = st.dictionaries(TEXTS, JSON, max_size=4)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from([*KINDS, "other"]) | JSON,
    "messageId": SCALARS,
    "userId": SCALARS | JSON,
    "anonymousId": SCALARS,
    "groupId": SCALARS,
    "event": TEXTS | JSON,
    "name": JSON,
    "category": JSON,
    "properties": VALUES | VALUES | JSON,
    "traits": VALUES | VALUES | JSON,
    "context": CONTEXT,
    "integrations": INTEGRATIONS,
    "timestamp": MOMENTS,
    "originalTimestamp": MOMENTS,
    "sentAt": MOMENTS,
}
CHANGES = st.lists(st.sampled_from(list(MEMBERS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: MEMBERS[name] for name in names})
)


def message(kind: str) -> st.SearchStrategy[Any]:
    """A good message with up to three members changed, or now and then anything."""
    changed = CHANGES.map(lambda changes: {**GOOD[kind], **changes})
    return st.one_of(changed, changed, changed, changed, JSON)


MESSAGES = st.sampled_from(KINDS).flatmap(message)
BATCHES = JSON | st.fixed_dictionaries(
    {"batch": st.lists(MESSAGES, max_size=4)},
    optional={"context": CONTEXT, "integrations": INTEGRATIONS, "sentAt": MOMENTS},
)


def as_parsed(document: object) -> object:
    """The document as a parser returns it, with escapes of half surrogate pairs and NaN."""
    return json.loads(json.dumps(document))


def check_events(reading: Reading) -> None:
    """Check that each event can be encoded for Kafka and is decoded unchanged."""
    for event in reading.events:
        assert 0 < len(event.event_id) <= 128
        assert Decoder().decode(encode_single_object(event)) == event
        assert partition_key(event)


def check_error(error: DocumentError, messages: int) -> None:
    assert error.field
    assert error.problem
    assert error.index is None or 0 <= error.index < messages


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), message(kind))))
def test_any_message_results_in_one_event_one_reason_or_one_error(posted: tuple[str, object]) -> None:
    kind, document = posted
    try:
        reading = read_call(kind, as_parsed(document), RECEIVED)
    except DocumentError as error:
        check_error(error, 0)
    else:
        assert len(reading.events) + reading.set_aside.total() == 1
        check_events(reading)


@given(BATCHES)
def test_any_batch_results_in_one_event_or_reason_a_message_or_one_error(document: object) -> None:
    parsed = as_parsed(document)
    messages = parsed.get("batch") if isinstance(parsed, dict) else None
    number = len(messages) if isinstance(messages, list) else 0
    try:
        reading = read_batch(parsed, RECEIVED)
    except DocumentError as error:
        check_error(error, number)
    else:
        assert len(reading.events) + reading.set_aside.total() == number
        check_events(reading)


@given(st.text() | st.floats() | st.integers() | JSON)
def test_moments_lie_within_ten_thousand_years(value: object) -> None:
    moment = read_time_ms(value)
    assert moment is None or abs(moment) <= 10_000 * 366 * 86_400_000
