"""Each kind of Segment message becomes an event, or is set aside with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from flagpost_publisher.gateway.fronts import DocumentError, Reading
from flagpost_publisher.gateway.key import Key, SentType
from flagpost_publisher.gateway.segment import requests
from flagpost_publisher.gateway.segment.mapping import KINDS, SetAside
from flagpost_schemas import (
    AccountMetadata,
    Context,
    Event,
    MetadataGroup,
    Source,
    TrackEvent,
    VisitorMetadata,
)
from fronts_reading import ANY_KEY, read_batch, read_by, read_call

RECEIVED = 1_800_000_000_000


def call(kind: str, **members: Any) -> Reading:
    return read_call(kind, members, RECEIVED)


def event_of(kind: str, **members: Any) -> Event:
    reading = call(kind, **members)
    assert not reading.set_aside
    (event,) = reading.events
    return event


def track_of(kind: str = "track", **members: Any) -> TrackEvent:
    event = event_of(kind, **{"userId": "u1", "event": "Signed Up", **members})
    assert isinstance(event, TrackEvent)
    return event


def reasons(reading: Reading) -> dict[SetAside, int]:
    assert not reading.events
    return {SetAside(reason): count for reason, count in reading.set_aside.items()}


def test_track_becomes_a_track_event_with_all_its_members() -> None:
    event = event_of(
        "track",
        messageId="m1",
        userId="u1",
        anonymousId="a1",
        event="Order Completed",
        properties={"order_id": "o1", "products": [{"sku": 1}, {"sku": 2}], "shipping": {"city": "Bern"}},
        context={
            "ip": "192.0.2.1",
            "userAgent": "Firefox",
            "locale": "de-CH",
            "groupId": "acme",
            "page": {"url": "https://shop.example/cart", "title": "Cart", "referrer": "https://shop.example"},
            "library": {"name": "analytics-python", "version": "2.4.0"},
            "consent": {"categoryPreferences": {"analytics": True, "advertising": False}},
        },
    )
    assert event == TrackEvent(
        event_id="m1",
        occurred_at=RECEIVED,
        account_id="acme",
        context=Context(
            ip="192.0.2.1",
            user_agent="Firefox",
            url="https://shop.example/cart",
            title="Cart",
            locale="de-CH",
        ),
        consent={"analytics": True, "advertising": False},
        source=Source(sdk="analytics-python", sdk_version="2.4.0"),
        visitor_id="u1",
        anonymous_id="a1",
        event="Order Completed",
        properties={"order_id": "o1", "products_count": 2, "shipping_city": "Bern"},
    )


def test_a_track_event_named_like_optimizelys_decisions_is_an_ordinary_one() -> None:
    assert track_of(event="Experiment Viewed", properties={"flag_key": "f"}).event == "Experiment Viewed"


def test_a_page_is_one_event_with_its_name_first_and_the_referrer() -> None:
    event = track_of(
        "page",
        name="Home",
        category="Docs",
        properties={"url": "https://a.example", "title": "Hi"},
        context={"page": {"referrer": "https://b.example"}},
    )
    assert event.event == "page"
    assert event.properties == {
        "name": "Home",
        "category": "Docs",
        "url": "https://a.example",
        "title": "Hi",
        "referrer": "https://b.example",
    }
    assert list(event.properties)[:2] == ["name", "category"]
    assert event.context == Context(url="https://a.example", title="Hi")


def test_a_pages_own_properties_come_before_those_of_the_context() -> None:
    event = track_of(
        "page",
        name="Outer",
        properties={"name": "Own", "referrer": "https://own.example"},
        context={"page": {"referrer": "https://b.example", "url": "https://context.example"}},
    )
    assert event.properties == {"name": "Own", "referrer": "https://own.example"}
    assert event.context is not None
    assert event.context.url == "https://context.example"


def test_a_screen_is_one_event_with_its_name_as_a_property() -> None:
    event = track_of("screen", name="Settings", properties={"depth": 3, "url": "app://settings"})
    assert (event.event, event.properties) == (
        "screen",
        {"name": "Settings", "depth": 3, "url": "app://settings"},
    )
    assert event.context == Context()


def test_identify_becomes_a_visitors_metadata() -> None:
    event = event_of(
        "identify",
        messageId="m2",
        userId="u1",
        traits={"plan": "pro", "tags": ["a", "b"], "company": {"name": "Acme"}, "accountId": "acme"},
    )
    assert event == VisitorMetadata(
        event_id="m2",
        occurred_at=RECEIVED,
        account_id="acme",
        context=Context(),
        source=Source(),
        visitor_id="u1",
        group=MetadataGroup.CUSTOM,
        values={"plan": "pro", "tags": ["a", "b"], "company_name": "Acme", "accountId": "acme"},
    )


def test_group_becomes_an_accounts_metadata() -> None:
    event = event_of("group", messageId="m3", userId="u1", groupId="acme", traits={"employees": 420})
    assert event == AccountMetadata(
        event_id="m3",
        occurred_at=RECEIVED,
        account_id="acme",
        context=Context(),
        source=Source(),
        values={"employees": 420},
    )


@pytest.mark.parametrize(
    ("kind", "members", "reason"),
    [
        ("alias", {"userId": "u1", "previousId": "a1"}, SetAside.ALIAS),
        ("track", {"event": "e"}, SetAside.NO_ID),
        ("track", {"event": "e", "userId": "", "anonymousId": None}, SetAside.NO_ID),
        ("track", {"event": "e", "userId": {"id": 1}}, SetAside.NO_ID),
        ("track", {"event": "e", "userId": True}, SetAside.NO_ID),
        ("page", {}, SetAside.NO_ID),
        ("screen", {"groupId": "acme"}, SetAside.NO_ID),
        ("track", {"userId": "u1"}, SetAside.NO_EVENT_NAME),
        ("track", {"userId": "u1", "event": ""}, SetAside.NO_EVENT_NAME),
        ("identify", {"anonymousId": "a1", "traits": {"plan": "pro"}}, SetAside.NO_USER_ID),
        ("identify", {"userId": "u1"}, SetAside.NO_TRAITS),
        ("identify", {"userId": "u1", "traits": {"score": float("nan")}}, SetAside.NO_TRAITS),
        ("group", {"userId": "u1", "traits": {"size": 1}}, SetAside.NO_GROUP_ID),
        ("group", {"userId": "u1", "groupId": "acme"}, SetAside.NO_TRAITS),
        ("track", {"userId": "u1", "event": "e", "integrations": {"Pendo": False}}, SetAside.NOT_FOR_PENDO),
        ("alias", {"integrations": {"All": False}}, SetAside.NOT_FOR_PENDO),
        ("track", {"integrations": {"all": False, "Amplitude": True}}, SetAside.NOT_FOR_PENDO),
    ],
)
def test_a_message_that_becomes_no_event_is_set_aside_with_a_reason(
    kind: str, members: dict[str, Any], reason: SetAside
) -> None:
    assert reasons(call(kind, **members)) == {reason: 1}


@pytest.mark.parametrize(
    "integrations",
    [None, {}, {"All": True}, {"All": False, "Pendo": True}, {"All": False, "Pendo": {"region": "eu"}}],
)
def test_a_message_for_pendo_passes(integrations: object) -> None:
    assert track_of(integrations=integrations).visitor_id == "u1"


def test_an_id_may_be_a_number() -> None:
    event = track_of(userId=17, anonymousId=1.5, messageId=9)
    assert (event.visitor_id, event.anonymous_id, event.event_id) == ("17", "1.5", "9")


def test_an_anonymous_track_keeps_its_anonymous_id() -> None:
    event = track_of(userId=None, anonymousId="a1")
    assert (event.visitor_id, event.anonymous_id) == (None, "a1")


@pytest.mark.parametrize(
    ("members", "account_id"),
    [
        ({}, None),
        ({"groupId": "g"}, "g"),
        ({"groupId": "", "traits": {"accountId": "t"}}, "t"),
        ({"traits": {"accountId": "t"}, "context": {"groupId": "c"}}, "t"),
        ({"context": {"groupId": 7, "traits": {"accountId": "ct"}}}, "7"),
        ({"context": {"traits": {"accountId": "ct"}}}, "ct"),
        ({"properties": {"accountId": "p"}}, None),
    ],
)
def test_the_nearest_account_is_used(members: dict[str, Any], account_id: str | None) -> None:
    assert track_of(**members).account_id == account_id


def test_only_true_grants_consent() -> None:
    preferences = {"analytics": True, "ads": False, "odd": "yes", "none": None}
    event = track_of(context={"consent": {"categoryPreferences": preferences}})
    assert event.consent == {"analytics": True, "ads": False, "odd": False, "none": False}


@pytest.mark.parametrize("consent", [None, "yes", {}, {"categoryPreferences": ["analytics"]}])
def test_without_preferences_consent_is_not_set(consent: object) -> None:
    assert track_of(context={"consent": consent}).consent is None


def test_a_long_message_id_becomes_the_same_event_id_each_time() -> None:
    first, again = track_of(messageId="m" * 129), track_of(messageId="m" * 129)
    assert first.event_id == again.event_id
    assert len(first.event_id) == 64
    assert track_of(messageId="n" * 129).event_id != first.event_id
    assert track_of(messageId="m" * 128).event_id == "m" * 128


@pytest.mark.parametrize("message_id", [None, "", True, ["m"]])
def test_without_a_message_id_each_message_has_an_event_id_of_its_own(message_id: object) -> None:
    assert track_of(messageId=message_id).event_id != track_of(messageId=message_id).event_id


def test_values_that_avro_cannot_hold_are_repaired_not_refused() -> None:
    event = track_of(
        userId="u\ud800",
        properties={"cut": "smile \ud83d", "big": 2**70, "nan": float("nan"), "list": [1, float("inf")]},
        context={"ip": 7, "page": "home", "library": None},
    )
    assert event.visitor_id == "u\ufffd"
    assert event.properties == {"cut": "smile \ufffd", "big": str(2**70), "list": "1"}
    assert (event.context, event.source) == (Context(), Source())


@pytest.mark.parametrize("document", [[], "text", None, 7])
def test_a_body_that_is_not_a_message_is_refused(document: object) -> None:
    with pytest.raises(DocumentError) as refused:
        read_call("track", document, RECEIVED)
    assert (refused.value.index, refused.value.field) == (None, "body")


def nested(levels: int) -> dict[str, Any]:
    deep: dict[str, Any] = {"leaf": 1}
    for _ in range(levels):
        deep = {"in": deep}
    return deep


MALFORMED: list[Any] = [
    {"userId": "u", "event": "e"},
    {"type": None, "userId": "u", "event": "e"},
    {"type": 7, "userId": "u", "event": "e"},
    {"type": "track", "userId": "u", "event": 7},
    {"type": "track", "userId": "u", "event": "e", "properties": "many"},
    {"type": "track", "userId": "u", "event": "e", "properties": [1]},
    {"type": "track", "userId": "u", "event": "e", "properties": nested(100)},
    {"type": "track", "userId": "u\0", "event": "e"},
    {"type": "track", "userId": "u", "event": "e", "context": "here"},
    {"type": "track", "userId": "u", "event": "e", "integrations": ["Pendo"]},
    {"type": "identify", "userId": "u", "traits": "tall"},
    {"type": "identify", "userId": "u", "traits": nested(100)},
    None,
    "track",
    7,
    [],
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: str(message)[:60])
def test_a_message_that_cannot_be_understood_costs_only_itself(message: Any) -> None:
    good = {"type": "track", "userId": "u", "event": "e"}
    reading = read_batch({"batch": [good, message, good]}, RECEIVED)
    assert len(reading.events) == 2
    assert reading.set_aside == {SetAside.MALFORMED: 1}


@pytest.mark.parametrize(
    "message", [each for each in MALFORMED if isinstance(each, dict) and isinstance(each.get("type"), str)]
)
def test_a_malformed_message_alone_is_accepted_and_set_aside_too(message: dict[str, Any]) -> None:
    reading = read_call(message["type"], message, RECEIVED)
    assert (reading.events, reading.set_aside) == ([], {SetAside.MALFORMED: 1})


@pytest.mark.parametrize("shared", [{"context": "here"}, {"integrations": 7}])
def test_a_malformed_shared_part_of_a_batch_costs_all_of_its_messages(
    shared: dict[str, Any],
) -> None:
    """The shared part may be the one that denies consent, or switches Pendo off."""
    reading = read_batch({"batch": [{"type": "track", "userId": "u", "event": "e"}] * 2, **shared}, RECEIVED)
    assert (reading.events, reading.set_aside) == ([], {SetAside.MALFORMED: 2})


def test_an_empty_list_from_php_is_read_as_an_empty_map() -> None:
    reading = read_batch(
        {
            "batch": [
                {
                    "type": "track",
                    "userId": "u",
                    "event": "e",
                    "properties": [],
                    "context": [],
                    "integrations": [],
                },
                {"type": "identify", "userId": "u", "traits": []},
                {"type": "track", "userId": "u", "event": "e", "properties": {"plan": "gold"}},
            ],
            "context": [],
            "integrations": [],
        },
        RECEIVED,
    )
    assert [getattr(event, "properties", None) for event in reading.events] == [{}, {"plan": "gold"}]
    assert reading.set_aside == {SetAside.NO_TRAITS: 1}


def test_a_message_that_a_key_may_not_send_costs_only_itself() -> None:
    key = Key("web", frozenset({SentType.TRACK, SentType.PAGE}))
    batch = [
        {"type": kind, "userId": "u", "event": "e", "groupId": "g", "traits": {"a": 1}} for kind in KINDS
    ]
    reading = read_by(requests.read_batch, {"batch": batch}, RECEIVED, key)
    assert [event.event for event in reading.events if isinstance(event, TrackEvent)] == ["e", "page"]
    assert (len(reading.events), reading.set_aside) == (2, {SetAside.NOT_ALLOWED: len(KINDS) - 2})


def test_a_batch_is_read_in_order_and_shares_its_members() -> None:
    reading = read_batch(
        {
            "batch": [
                {"type": "track", "userId": "u1", "event": "one", "context": {"ip": "192.0.2.9"}},
                {"type": "alias", "userId": "u1"},
                {"type": "page", "userId": "u2", "integrations": {"Pendo": True}},
                {"type": "track", "userId": "u3", "event": "three", "sentAt": None},
                {"type": "heartbeat"},
            ],
            "context": {"ip": "192.0.2.1", "locale": "fr"},
            "integrations": {"All": False},
            "writeKey": "ignored",
        },
        RECEIVED,
    )
    assert reading.set_aside == {SetAside.NOT_FOR_PENDO: 3, SetAside.UNKNOWN_TYPE: 1}
    (page,) = reading.events
    assert isinstance(page, TrackEvent)
    assert (page.visitor_id, page.context) == ("u2", Context(ip="192.0.2.1", locale="fr"))


def test_a_messages_own_context_comes_before_that_of_the_batch() -> None:
    message = {"type": "track", "userId": "u1", "event": "one", "context": {"ip": "192.0.2.9"}}
    (event,) = read_batch(
        {"batch": [message], "context": {"ip": "192.0.2.1", "locale": "fr"}}, RECEIVED
    ).events
    assert event.context == Context(ip="192.0.2.9", locale="fr")


def test_an_empty_batch_has_no_events() -> None:
    assert read_batch({"batch": []}, RECEIVED) == Reading(RECEIVED, ANY_KEY)


@pytest.mark.parametrize(
    ("document", "field"), [(["track"], "body"), ({}, "batch"), ({"batch": {}}, "batch")]
)
def test_a_batch_of_another_form_is_refused_with_its_field(document: object, field: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read_batch(document, RECEIVED)
    assert (refused.value.index, refused.value.field) == (None, field)
