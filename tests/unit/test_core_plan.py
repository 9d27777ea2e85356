"""Planning: the precedence of outcomes (docs/contract.md#outcomes), consent, flags, metadata fields, mapping."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from engine_world import START_MS, decision
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.planning.plan import MAX_LIKE_CHARACTERS, Planned, Planner
from flagpost_consumer.core.policy import (
    AnonymousPolicy,
    ConsentSettings,
    DecisionsSettings,
    MappingSettings,
    Patterns,
    Policy,
    PropertiesPolicy,
    SelectSettings,
)
from flagpost_consumer.core.records import DecodeFailure
from flagpost_schemas import (
    AccountMetadata,
    DecisionEvent,
    Event,
    MetadataGroup,
    Source,
    VisitorMetadata,
)
from planned_events import plan, track

DAY_MS = 86_400_000
STRICT = Policy(
    select=SelectSettings(environments=Patterns(allow=["prod*"])),
    consent=ConsentSettings(required=True),
    decisions=DecisionsSettings(flags_allow=["check*"], flags_deny=["*out2"], experiments_only=True),
    mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT),
)


def reasons(event: Event | DecodeFailure, policy: Policy | None = None) -> list[Reason | None]:
    return [planned.ending.reason if planned.ending else None for planned in plan(event, policy)]


def test_a_decision_is_planned_as_a_track_delivery_and_a_metadata_delivery() -> None:
    planned = plan(decision("v"))
    assert [p.kind for p in planned] == [Kind.TRACK, Kind.VISITOR_METADATA]
    assert all(p.ending is None for p in planned)
    assert [p.kind for p in plan(decision("v", variation=None))] == [Kind.TRACK]
    assert [
        p.kind for p in plan(decision("v"), Policy(decisions=DecisionsSettings(visitor_metadata=False)))
    ] == [Kind.TRACK]


def test_an_undecodable_record_is_planned_as_one_delivery_of_unknown_kind() -> None:
    (planned,) = plan(DecodeFailure(Reason.UNKNOWN_SCHEMA, "why"))
    assert planned.kind is Kind.UNKNOWN
    assert planned.ending is not None
    assert (planned.ending.reason, planned.ending.detail) == (Reason.UNKNOWN_SCHEMA, "why")


BROKEN_IN_EVERY_WAY = decision(
    "",
    "other",
    occurred_at=START_MS + 301_000,
    consent={"analytics": False},
    decision_event_dispatched=False,
)
MENDING: list[tuple[dict[str, object], Reason | None]] = [
    ({}, Reason.INVALID),
    ({"occurred_at": START_MS - 8 * DAY_MS}, Reason.NO_VISITOR_ID),
    ({"visitor_id": "v"}, Reason.NOT_SELECTED),
    ({"source": Source(environment="production")}, Reason.NO_CONSENT),
    ({"consent": {"analytics": True}}, Reason.FLAG_FILTERED),
    ({"flag_key": "checkout2"}, Reason.FLAG_FILTERED),
    ({"flag_key": "checkout"}, Reason.NOT_DISPATCHED),
    ({"decision_event_dispatched": True}, Reason.EXPIRED),
    ({"occurred_at": START_MS}, None),
]


def test_the_first_reason_that_applies_decides() -> None:
    """Fix one thing after another: each time the next reason in the contract's order applies."""
    event: DecisionEvent = BROKEN_IN_EVERY_WAY
    for change, expected in MENDING:
        event = dataclasses.replace(event, **change)  # type: ignore[arg-type]
        first, second = reasons(event, STRICT)
        assert first is expected
        assert second is (None if expected is Reason.EXPIRED else expected), "metadata does not expire"


@pytest.mark.parametrize("rule_type", ["experiment", "delivery", "holdout", "none", None, "feature-test"])
@pytest.mark.parametrize("dispatched", [True, False])
def test_experiments_only_uses_the_rule_s_type_or_the_impression_if_that_is_unknown(
    rule_type: str | None, dispatched: bool
) -> None:
    planner = Planner(Policy(decisions=DecisionsSettings(experiments_only=True)))
    known = rule_type in ("experiment", "delivery", "holdout", "none")
    is_sent = rule_type == "experiment" if known else dispatched
    for visitor in ("v", "w"):  # the second uses what was remembered of the first
        event = decision(visitor, rule_type=rule_type, decision_event_dispatched=dispatched)
        ended = [planned.ending and planned.ending.reason for planned in planner.plan(event, START_MS)]
        assert ended == [None if is_sent else Reason.NOT_DISPATCHED] * 2


def test_decisions_that_differ_only_by_the_rule_s_type_are_distinguished() -> None:
    planner = Planner(Policy(decisions=DecisionsSettings(experiments_only=True)))
    types = ["delivery", "experiment", None]
    ended = [planner.plan(decision("v", rule_type=each), START_MS)[0].ending is not None for each in types]
    assert ended == [True, False, False]


def test_an_event_exactly_at_the_limit_of_age_or_future_is_sent() -> None:
    assert reasons(track(occurred_at=START_MS - 600_000_000)) == [None]
    assert reasons(track(occurred_at=START_MS - 600_000_001)) == [Reason.EXPIRED]
    assert reasons(track(occurred_at=START_MS + 300_000)) == [None]
    assert reasons(track(occurred_at=START_MS + 300_001)) == [Reason.INVALID]


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (track(event_id="e" * 129), "event_id has 129 characters"),
        (track(event=""), "event is empty"),
        (track(occurred_at=-1), "before 1970"),
        (decision("v", ""), "flag_key is empty"),
        (
            AccountMetadata(event_id="e", occurred_at=START_MS, account_id="", values={"a": 1}),
            "account_id is empty",
        ),
        (
            VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values={}),
            "values holds nothing",
        ),
        (
            VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values={"a": float("nan")}),
            "values holds nothing",
        ),
    ],
)
def test_an_invalid_event_says_why(event: Event, part: str) -> None:
    for planned in plan(event):
        assert planned.ending is not None
        assert planned.ending.reason is Reason.INVALID
        assert part in planned.ending.detail


SHOP = Source(service="shop-eu", environment="production")


@pytest.mark.parametrize(
    ("source", "account", "select", "selected"),
    [
        (None, None, {}, True),
        (SHOP, "acme", {"environments": {"allow": ["prod*", "live"]}}, True),
        (SHOP, "acme", {"environments": {"allow": ["Prod*"]}}, False),
        (SHOP, "acme", {"environments": {"allow": []}}, False),
        (SHOP, "acme", {"environments": {"deny": ["production"]}}, False),
        (SHOP, "acme", {"environments": {"deny": []}}, True),
        (Source(service="shop"), "acme", {"environments": {"allow": ["*"]}}, False),
        (None, "acme", {"environments": {"deny": ["*"]}}, True),
        (SHOP, None, {"services": {"allow": ["shop-*"], "deny": ["*-us"]}}, True),
        (SHOP, None, {"services": {"allow": ["shop-*"], "deny": ["*-eu"]}}, False),
        (SHOP, "acme", {"accounts": {"deny": ["test-*"]}}, True),
        (SHOP, "test-1", {"accounts": {"deny": ["test-*"]}}, False),
        (SHOP, None, {"accounts": {"allow": ["acme"]}}, False),
        (SHOP, "acme", {"environments": {"allow": ["production"]}, "accounts": {"allow": ["other"]}}, False),
    ],
)
def test_an_event_that_is_not_selected_is_dropped_with_its_metadata(
    source: Source | None, account: str | None, select: dict[str, dict[str, list[str]]], selected: bool
) -> None:
    policy = Policy(select=SelectSettings.model_validate(select))
    told = None if selected else Reason.NOT_SELECTED
    shared: dict[str, Any] = {
        "event_id": "e",
        "occurred_at": START_MS,
        "source": source,
        "account_id": account,
    }
    assert reasons(dataclasses.replace(decision("v"), source=source, account_id=account), policy) == [
        told,
        told,
    ]
    assert reasons(track(source=source, account_id=account), policy) == [told]
    assert reasons(VisitorMetadata(**shared, visitor_id="v", values={"a": 1}), policy) == [told]
    if account is not None:
        assert reasons(AccountMetadata(**shared, values={"a": 1}), policy) == [told]


def test_the_detail_of_an_event_that_is_not_selected_names_the_setting_and_no_account() -> None:
    policy = Policy(select=SelectSettings(accounts=Patterns(deny=["acme"])))
    for planned in plan(track(account_id="acme"), policy):
        assert planned.ending is not None
        assert "select.accounts.deny" in planned.ending.detail
        assert "acme" not in planned.ending.detail


@pytest.mark.parametrize(
    ("consent", "required", "expected"),
    [
        (None, False, None),
        (None, True, Reason.NO_CONSENT),
        ({}, False, None),
        ({"marketing": False}, False, None),
        ({"marketing": True}, True, Reason.NO_CONSENT),
        ({"analytics": False}, False, Reason.NO_CONSENT),
        ({"analytics": True}, True, None),
    ],
)
def test_consent(consent: dict[str, bool] | None, required: bool, expected: Reason | None) -> None:
    policy = Policy(consent=ConsentSettings(required=required))
    account = AccountMetadata(
        event_id="e", occurred_at=START_MS, account_id="a", values={"x": 1}, consent=consent
    )
    assert reasons(track(consent=consent), policy) == [expected]
    assert reasons(account, policy) == [expected]


def test_anonymous_events_are_dropped_or_sent_under_their_anonymous_id() -> None:
    as_visitor = Policy(mapping=MappingSettings(anonymous=AnonymousPolicy.AS_VISITOR))
    anonymous = track(visitor_id=None, anonymous_id="anon")
    assert reasons(anonymous) == [Reason.NO_VISITOR_ID]
    (planned,) = plan(anonymous, as_visitor)
    assert planned.track is not None
    assert (planned.ending, planned.track.visitor_id) == (None, "anon")
    assert reasons(track(visitor_id=None), as_visitor) == [Reason.NO_VISITOR_ID]
    assert reasons(track(visitor_id="", anonymous_id="")) == [Reason.NO_VISITOR_ID]


@pytest.mark.parametrize(
    ("anonymous_id", "sent"),
    [
        ("anon", "_PENDO_T_anon"),
        ("_PENDO_T_anon", "_PENDO_T_anon"),
        ("", None),
        ("_PENDO_T_", None),
        (None, None),
    ],
)
def test_anonymous_events_can_be_sent_under_the_ids_of_pendos_own_agent(
    anonymous_id: str | None, sent: str | None
) -> None:
    policy = Policy(mapping=MappingSettings(anonymous=AnonymousPolicy.AS_ANONYMOUS))
    (planned,) = plan(track(visitor_id=None, anonymous_id=anonymous_id), policy)
    assert planned.track is not None
    ended = None if planned.ending is None else planned.ending.reason
    assert (ended, planned.track.visitor_id or None) == (None if sent else Reason.NO_VISITOR_ID, sent)
    (known,) = plan(track(visitor_id="v1", anonymous_id=anonymous_id), policy)
    assert known.track is not None
    assert known.track.visitor_id == "v1"


def test_without_an_integration_key_metadata_says_what_to_set_and_tracks_go_on() -> None:
    policy = Policy(can_send_metadata=False, decisions=DecisionsSettings(visitor_metadata=False))
    event = VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values={"a": 1})
    (planned,) = plan(event, policy)
    assert planned.ending is not None
    assert planned.ending.reason is Reason.INVALID
    assert "pendo.integration_key" in planned.ending.detail
    assert reasons(track(), policy) == [None]


def test_fields_are_sent_under_their_api_name_and_missing_ones_are_reported() -> None:
    planner = Planner(Policy())
    planner.fields = {("visitor", "custom"): {"[Optimizely] checkout": "optimizely_checkout", "plan": "plan"}}
    _, found = planner.plan(decision("v", "checkout", "a"), START_MS)
    assert found.metadata is not None
    assert found.metadata.values == {"optimizely_checkout": "a"}
    _, missing = planner.plan(decision("v", "search", "a"), START_MS)
    assert missing.ending is not None
    assert missing.ending.reason is Reason.FIELD_MISSING
    several = VisitorMetadata(
        event_id="e", occurred_at=START_MS, visitor_id="v", values={"plan": "pro", "nowhere": 1}
    )
    (partly,) = planner.plan(several, START_MS)
    assert (partly.ending, partly.missing_fields) == (None, ("nowhere",))
    assert partly.metadata is not None
    assert partly.metadata.values == {"plan": "pro"}
    agent = dataclasses.replace(several, group=MetadataGroup.AGENT)
    assert reasons_of(planner.plan(agent, START_MS)) == [None], (
        "a group that was not read is sent as configured"
    )


def reasons_of(planned: tuple[Planned, ...]) -> list[Reason | None]:
    return [each.ending.reason if each.ending else None for each in planned]


def test_a_flag_may_have_a_field_of_its_own() -> None:
    policy = Policy(
        decisions=DecisionsSettings(metadata_field="exp_{flag_key}", metadata_fields={"b": "special"})
    )
    fields = [list(plan(decision("v", flag), policy)[1].metadata.values) for flag in "ab"]  # type: ignore[union-attr]
    assert fields == [["exp_a"], ["special"]]


def test_properties_are_trimmed_or_the_event_is_refused() -> None:
    event = track(properties={"2nd plan": "x", "empty": None, "nan": float("nan")})
    (planned,) = plan(event)
    assert planned.track is not None
    assert planned.track.properties == {"_2nd_plan": "x"}
    assert [repair.rule for repair in planned.repairs] == [Rule.NAME_CHARACTERS, Rule.NAME_DIGIT]
    reject = Policy(mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT))
    (refused,) = plan(event, reject)
    assert refused.ending is not None
    assert refused.ending.reason is Reason.INVALID
    assert reasons(track(properties={"fine": 1, "empty": None}), reject) == [None]
    (named,) = plan(track(properties={"2nd": "x"}), reject)
    assert named.ending is not None
    assert "name_digit" in named.ending.detail


def test_which_deliveries_are_duplicates() -> None:
    def key(event: Event) -> bytes | None:
        return plan(event)[0].dedupe_key

    same = key(decision("v", "f", "a"))
    assert same is not None
    assert len(same) == 16
    assert key(decision("v", "f", "a", event_id="other", rule_key="other", attributes={"x": 1})) == same
    assert key(decision("v", "f", "b", enabled=False)) == key(decision("v", "f", "off"))
    different = [
        decision("w", "f", "a"), decision("v", "g", "a"), decision("v", "f", "b"), decision("v", "f", None),
        decision("vf", "", "a"), decision("v", "fa", ""),
    ]  # fmt: skip
    keys = {key(event) for event in different if event.flag_key} | {same}
    assert len(keys) == 6
    assert key(track(event_id="1")) == key(track(event_id="1", visitor_id="w", event="Other"))
    assert key(track(event_id="1")) != key(track(event_id="2"))


# The common part of decisions


def test_the_remembered_parts_of_decisions_are_bounded_in_number_and_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flagpost_consumer.core.planning.plan.MAX_LIKENESSES", 2)
    planner = Planner(Policy())
    for flag, remembered in (("a", 1), ("b", 2), ("b", 2), ("c", 1), ("x" * MAX_LIKE_CHARACTERS, 1)):
        first, second = (
            planner.plan(decision("v", flag), START_MS),
            planner.plan(decision("v", flag), START_MS),
        )
        assert first == second
        assert len(planner._likenesses) == remembered
