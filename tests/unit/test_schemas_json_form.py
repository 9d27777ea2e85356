"""Events as JSON: which documents are accepted, and the error for each that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_schemas import (
    AccountMetadata,
    Context,
    DecisionEvent,
    MetadataGroup,
    RuleType,
    TrackEvent,
    VisitorMetadata,
)
from flagpost_schemas.json_form import EventFormError, event_from_json

NOW_MS = 1_800_000_000_000
DECISION = {
    "type": "decision", "visitor_id": "v", "flag_key": "f", "enabled": True, "decision_event_dispatched": False
}  # fmt: skip


def read(document: object) -> object:
    return event_from_json(document, now_ms=NOW_MS, new_event_id=lambda: "new")


def test_each_type_is_read_with_its_defaults() -> None:
    assert read(DECISION) == DecisionEvent(
        event_id="new", occurred_at=NOW_MS, visitor_id="v", flag_key="f", enabled=True,
        decision_event_dispatched=False,
    )  # fmt: skip
    assert read(
        {"type": "track", "event": "e", "anonymous_id": "a", "context": {"ip": "::1", "url": None}}
    ) == (
        TrackEvent(event_id="new", occurred_at=NOW_MS, event="e", anonymous_id="a", context=Context(ip="::1"))
    )
    assert read(
        {"type": "visitor", "visitor_id": "v", "group": "agent", "event_id": "mine"}
    ) == VisitorMetadata(event_id="mine", occurred_at=NOW_MS, visitor_id="v", group=MetadataGroup.AGENT)
    assert read({"type": "account", "account_id": "a", "values": {"tags": ["x", "y"], "n": {"m": 1}}}) == (
        AccountMetadata(
            event_id="new", occurred_at=NOW_MS, account_id="a", values={"tags": ["x", "y"], "n_m": 1}
        )
    )


@pytest.mark.parametrize(
    ("given_time", "milliseconds"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T13:00:00.250+01:00", 1_769_860_800_250),
    ],
)
def test_occurred_at_in_both_forms(given_time: object, milliseconds: int) -> None:
    event = read({**DECISION, "occurred_at": given_time})
    assert isinstance(event, DecisionEvent)
    assert event.occurred_at == milliseconds


@pytest.mark.parametrize("rule_type", [*RuleType, None])
def test_a_rule_has_one_of_four_types_or_an_unknown_one(rule_type: str | None) -> None:
    event = read({**DECISION, "rule_type": rule_type})
    assert isinstance(event, DecisionEvent)
    assert event.rule_type == rule_type


def test_nested_properties_are_flattened_in_order() -> None:
    event = read({"type": "track", "event": "e", "properties": {"z": {"b": 1, "a": [1, "x"]}, "l": [{}, {}]}})
    assert isinstance(event, TrackEvent)
    assert list(event.properties.items()) == [("z_b", 1), ("z_a", "1,x"), ("l_count", 2)]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "event"),
        ({}, "type"),
        ({"type": "page"}, "type"),
        ({"type": ["decision"]}, "type"),
        ({**DECISION, "visitor_id": 7}, "visitor_id"),
        ({**DECISION, "enabled": "yes"}, "enabled"),
        ({"type": "decision"}, "visitor_id"),
        ({**DECISION, "visitor_id": None}, "visitor_id"),
        ({**DECISION, "flagkey": "f"}, "flagkey"),
        ({**DECISION, "occurred_at": "yesterday"}, "occurred_at"),
        ({**DECISION, "occurred_at": "2026-01-31T12:00:00"}, "occurred_at"),
        ({**DECISION, "occurred_at": 2**64}, "occurred_at"),
        ({**DECISION, "occurred_at": True}, "occurred_at"),
        ({**DECISION, "attributes": []}, "attributes"),
        ({**DECISION, "attributes": {"big": 2**63}}, "attributes.big"),
        ({**DECISION, "context": {"ip": 1}}, "context.ip"),
        ({**DECISION, "context": {"IP": "x"}}, "context.IP"),
        ({**DECISION, "consent": {"analytics": 1}}, "consent.analytics"),
        ({"type": "visitor", "visitor_id": "v", "group": "salesforce"}, "group"),
        ({**DECISION, "rule_type": "feature-test"}, "rule_type"),
        ({**DECISION, "rule_type": 1}, "rule_type"),
        ({**DECISION, "visitor_id": "\ud800"}, "visitor_id"),
        ({**DECISION, "attributes": {"a": "\ud800"}}, "attributes.a"),
        ({**DECISION, "attributes": {"a": {"\ud800": 1}}}, "attributes"),
        ({**DECISION, "consent": {"\ud800": True}}, "consent"),
        ({**DECISION, "context": {"ip": "\ud800"}}, "context.ip"),
        ({**DECISION, "context": {"\ud800": "x"}}, "context"),
        ({**DECISION, "source": {"\ud800": "x"}}, "source"),
        ({**DECISION, "\ud800": 1}, "event"),
        ({**DECISION, "": 1}, '""'),
        ({"type": "visitor", "visitor_id": "v", "values": {"tags": ["x", "\ud800"]}}, "values.tags"),
    ],
)
def test_the_wrong_field_is_named(document: object, field: str) -> None:
    with pytest.raises(EventFormError) as caught:
        read(document)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_the_reason_is_given_once_and_fits_the_value() -> None:
    with pytest.raises(EventFormError, match=r"^properties: must be an object, not null$"):
        read({"type": "track", "event": "e", "properties": None})
    with pytest.raises(EventFormError, match=r"^attributes\.a: must be a finite number"):
        read({**DECISION, "attributes": {"a": float("nan")}})


def test_metadata_values_that_get_one_name_are_all_kept() -> None:
    values = {"a": {"b": 2}, "a_b": 1, "tags": ["x"]}
    event = read({"type": "visitor", "visitor_id": "v", "values": values})
    assert isinstance(event, VisitorMetadata)
    assert event.values == {"a_b": 2, "a_b_2": 1, "tags": ["x"]}


TEXTS = st.text(st.characters())
"""JSON can escape half of a surrogate pair."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*DECISION, "attributes", "consent", "context", "occurred_at"]), JSON))
def test_reading_returns_an_event_or_raises_a_named_error(document: dict[str, object]) -> None:
    try:
        assert isinstance(read({**DECISION, **document}), DecisionEvent)
    except EventFormError as error:
        str(error).encode()  # an answer can hold it
