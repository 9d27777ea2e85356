"""The contents of planned deliveries, the detail of each ending, and the keys that later releases must recognise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest

from engine_world import START_MS, decision
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.planning.clock_check import READINGS, ClockCheck
from flagpost_consumer.core.planning.ledger_ids import MAX_TEXT_CHARACTERS, LedgerIds, cut
from flagpost_consumer.core.planning.mapping import Metadata, Track, track_properties
from flagpost_consumer.core.planning.pendo_rules import MAX_PROPERTIES_BYTES, Repair, Rule, size_bytes, trim
from flagpost_consumer.core.planning.plan import (
    MAX_EVENT_ID_CHARACTERS,
    MAX_LIKE_CHARACTERS,
    Planned,
    Planner,
    decision_key,
    event_key,
    expired,
    key_of_ascii,
    of_flag,
    replayed_only,
)
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions
from flagpost_consumer.core.planning.visitor_names import LONG_ID_CHARACTERS, name_of_lane
from flagpost_consumer.core.policy import (
    ConsentSettings,
    DecisionsSettings,
    MappingSettings,
    Patterns,
    Policy,
    PropertiesPolicy,
    SelectSettings,
)
from flagpost_consumer.core.record_weights import MAX_METADATA_FIELDS
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_schemas import (
    AccountMetadata,
    Context,
    Event,
    MetadataGroup,
    MetadataValue,
    Scalar,
    TrackEvent,
    VisitorMetadata,
)
from planned_events import plan, track

ENDED = Ending(Reason.INVALID, "why")


def detail(event: Event, policy: Policy | None = None) -> str:
    ending = plan(event, policy)[0].ending
    assert ending is not None
    return ending.detail


# Contents


def test_a_track_event_is_planned_with_everything_that_pendo_gets() -> None:
    context = Context(url="https://c/")
    event = track(
        event="Order Completed", account_id="acme", properties={"total": 5, "a b": 1}, context=context
    )
    properties: dict[str, Scalar] = {"revenue": 5, "total": 5, "a_b": 1}
    assert plan(event) == (
        Planned(
            Kind.TRACK,
            track=Track("v", "acme", "purchase", START_MS, properties, context),
            repairs=(Repair(Rule.NAME_CHARACTERS, "a b", "renamed to a_b"),),
            dedupe_key=event_key("e"),
        ),
    )


def test_an_event_that_has_no_other_name_is_sent_under_its_own() -> None:
    assert plan(track()) == (
        Planned(Kind.TRACK, track=Track("v", None, "Clicked", START_MS, {}, None), dedupe_key=event_key("e")),
    )


def test_a_delivery_that_ends_at_planning_claims_no_key() -> None:
    for event in (track(event=""), decision("v", "")):
        planned = plan(event)[0]
        assert (planned.ending is not None, planned.dedupe_key) == (True, None)


def test_a_decision_is_planned_with_its_repairs() -> None:
    policy = Policy(decisions=DecisionsSettings(attribute_properties=["a b"], visitor_metadata=False))
    (planned,) = plan(decision("v", attributes={"a b": 1}), policy)
    assert planned.repairs == (Repair(Rule.NAME_CHARACTERS, "a b", "renamed to a_b"),)
    assert planned.missing_fields == ()
    refused = policy.model_copy(
        update={"mapping": MappingSettings(properties_policy=PropertiesPolicy.REJECT)}
    )
    assert [
        each.ending and each.ending.reason for each in plan(decision("v", attributes={"a b": 1}), refused)
    ] == [Reason.INVALID]


def test_a_decisions_own_names_are_fixed_and_rule_type_is_one_only_where_it_is_sent() -> None:
    given = {"rule_type": "own", "flag-key": "x"}
    policy = Policy(decisions=DecisionsSettings(attribute_properties=list(given), visitor_metadata=False))
    (planned,) = plan(decision("v", attributes=given, rule_type="experiment"), policy)
    assert planned.track is not None
    assert planned.track.properties["rule_type"] == "own"
    assert (planned.track.properties["flag_key"], planned.track.properties["flag_key_2"]) == ("checkout", "x")


@pytest.mark.parametrize("group", list(MetadataGroup))
def test_metadata_is_planned_for_its_target(group: MetadataGroup) -> None:
    values: dict[str, Any] = {"plan": "pro", "roles": ("a", "b"), "gone": None}
    sent: dict[str, MetadataValue] = {"plan": "pro", "roles": ["a", "b"], "gone": None}
    account = AccountMetadata(event_id="e", occurred_at=START_MS, account_id="a", values=values, group=group)
    visitor = VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values=values, group=group)
    assert plan(account) == (
        Planned(Kind.ACCOUNT_METADATA, metadata=Metadata("account", group.value, "a", sent)),
    )
    assert plan(visitor) == (
        Planned(Kind.VISITOR_METADATA, metadata=Metadata("visitor", group.value, "v", sent)),
    )
    (planned,) = plan(visitor)
    assert planned.metadata is not None
    assert type(planned.metadata.values["roles"]) is list, "JSON reads back a list"


def test_the_api_names_of_fields_are_those_of_the_same_kind_and_group() -> None:
    planner = Planner(Policy())
    planner.fields = {("account", "agent"): {"Plan": "plan"}}
    event = AccountMetadata(
        event_id="e",
        occurred_at=START_MS,
        account_id="a",
        values={"Plan": 1, "x": 2},
        group=MetadataGroup.AGENT,
    )
    (planned,) = planner.plan(event, START_MS)
    assert planned.metadata == Metadata("account", "agent", "a", {"plan": 1})
    assert (planned.ending, planned.missing_fields) == (None, ("x",))


def test_an_event_with_more_fields_than_the_limit_is_invalid() -> None:
    def event(count: int) -> VisitorMetadata:
        values: dict[str, MetadataValue] = {f"f{number}": number for number in range(count)}
        return VisitorMetadata(event_id="e", occurred_at=START_MS, visitor_id="v", values=values)

    assert plan(event(MAX_METADATA_FIELDS))[0].ending is None
    (planned,) = plan(event(MAX_METADATA_FIELDS + 1))
    assert planned.ending == Ending(
        Reason.INVALID,
        f"values has {MAX_METADATA_FIELDS + 1} fields, but an event may have {MAX_METADATA_FIELDS}: "
        "publish them in several",
    )
    assert planned.metadata == Metadata("visitor", "custom", "v", {}), "what is refused is not copied"


def test_a_pages_own_properties_override_the_contexts() -> None:
    context = Context(url="https://c/", title="From the context")
    own = {"url": "/own", "title": "Own", "referrer": "/before"}
    event = track(event="page_view", properties=own, context=context)
    assert track_properties(event, "page_view", MappingSettings()) == own
    bare = track(event="page_view", context=context)
    assert track_properties(bare, "page_view", MappingSettings()) == {
        "url": "https://c/",
        "title": "From the context",
        "referrer": None,
    }


def test_a_purchase_keeps_its_own_properties_under_pendos_names() -> None:
    own = {"revenue": 5, "items": 2, "total": 7, "products_count": 3}
    properties = track_properties(track(properties=own), "purchase", MappingSettings())
    assert properties == {**own, "order_id": None}


# The detail of an ending


@pytest.mark.parametrize(
    ("event", "policy", "said"),
    [
        (
            decision("v", "other"),
            Policy(decisions=DecisionsSettings(flags_allow=["check*"])),
            "decisions.flags_allow has no pattern for the flag",
        ),
        (
            decision("v", "other"),
            Policy(decisions=DecisionsSettings(flags_deny=["oth*"])),
            "decisions.flags_deny has a pattern for the flag",
        ),
        (
            decision("v", rule_type="delivery"),
            Policy(decisions=DecisionsSettings(experiments_only=True)),
            "the decision is not an experiment's (decisions.experiments_only)",
        ),
        (decision(""), None, "the event has no visitor id"),
        (decision("v", consent={"analytics": False}), None, "consent to analytics is denied"),
        (
            decision("v"),
            Policy(consent=ConsentSettings(required=True, category="ads")),
            "the event says nothing about consent to ads, which is required",
        ),
        (
            decision("v", occurred_at=START_MS + 2_001_999),
            None,
            (
                "occurred_at is 2001 s ahead of the consumer's clock, but delivery.max_future_seconds allows 300; "
                "check the clock of the service"
            ),
        ),
        (
            decision("v", occurred_at=START_MS - 600_000_001),
            None,
            "older than delivery.max_age_seconds, 600000 s; Pendo ignores events over 7 days old",
        ),
        (
            track(source=None),
            Policy(select=SelectSettings(environments=Patterns(allow=["prod"]))),
            "select.environments.allow does not match the event",
        ),
        (
            track(source=None),
            Policy(select=SelectSettings(services=Patterns(allow=["shop"]))),
            "select.services.allow does not match the event",
        ),
        (
            track(properties={"x": inf}),
            Policy(mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT)),
            'property "x" is not a finite number; leave it out instead',
        ),
        (
            track(properties={"2nd": 1}),
            Policy(mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT)),
            'rule name_digit: property "2nd" begins with a digit; mapping.properties_policy trim would repair it',
        ),
    ],
)
def test_each_ending_says_why_and_where_to_change_it(event: Event, policy: Policy | None, said: str) -> None:
    assert detail(event, policy) == said


def test_a_missing_field_is_named() -> None:
    planner = Planner(Policy())
    planner.fields = {("visitor", "custom"): {}}
    planned = planner.plan(decision("v"), START_MS)[1]
    assert planned.ending == Ending(
        Reason.FIELD_MISSING,
        'Pendo has no visitor custom field "[Optimizely] checkout"; flagpost check says what to create there',
    )


def test_an_event_id_may_be_as_long_as_documented() -> None:
    assert plan(track(event_id="e" * MAX_EVENT_ID_CHARACTERS))[0].ending is None


def test_an_event_of_the_epochs_first_moment_is_old_and_not_invalid() -> None:
    for occurred_at, reason in ((0, Reason.EXPIRED), (-1, Reason.INVALID)):
        ending = plan(track(occurred_at=occurred_at))[0].ending
        assert ending is not None
        assert ending.reason is reason


def test_a_record_without_an_event_has_no_deadline() -> None:
    planner = Planner(Policy())
    assert planner.deadline_ms(DecodeFailure(Reason.UNDECODABLE, "why")) == inf
    assert planner.deadline_ms(track()) == START_MS + 600_000_000


# Repairs


def test_each_repair_names_the_property_of_the_event_and_the_change() -> None:
    properties = {"error": 1, "a b": 2, "a_b": 3}
    assert trim(properties)[1] == (
        Repair(
            Rule.NAME_RESERVED,
            "error",
            "renamed to error_: Pendo keeps the name error for itself; have the service call it error_message or "
            "error_code",
        ),
        Repair(Rule.NAME_CHARACTERS, "a b", "renamed to a_b"),
        Repair(Rule.NAME_COLLISION, "a_b", "renamed to a_b_2"),
    )


def test_properties_left_out_or_cut_for_their_size_are_reported() -> None:
    left_out = "left out: the properties are over 511 bytes"
    assert trim({"flag_key": "f" * 400, "variation_key": "v" * 600, "a": 1})[1] == (
        Repair(Rule.SIZE, "a", left_out),
        Repair(Rule.SIZE, "variation_key", "cut to 77 characters"),
    )
    repairs = trim(dict.fromkeys((f"p{number}" for number in range(87)), 1))[1]
    assert repairs[:2] == (Repair(Rule.SIZE, "p85", left_out), Repair(Rule.SIZE, "p86", left_out))


def test_properties_that_take_511_bytes_without_the_last_one_are_kept() -> None:
    first = {"a": "x" * (511 - len(b'{"a":""}'))}
    assert trim({**first, "b": 1})[0] == first
    flag = {"flag_key": "x" * (511 - len(b'{"flag_key":""}'))}
    assert trim({"flag_key": flag["flag_key"] + "x", "b": 1})[0] == flag
    assert size_bytes(flag) == 511


@pytest.mark.parametrize("count", range(75, 95))
def test_a_text_of_six_bytes_a_character_is_kept_up_to_the_limit(count: int) -> None:
    given: dict[str, Scalar] = {"a": "\x00" * count}
    fits = len(b'{"a":""}') + 6 * count <= MAX_PROPERTIES_BYTES
    assert trim(given)[0] == (given if fits else {})


# Keys that a later release must recognise


def test_keys_in_the_ledger_are_recognised_by_later_releases() -> None:
    """A later release must compute the same keys and ids as those that are in the ledger."""
    of_decision = "1264e3e71257d5d8451cdd631af2c10b"
    assert decision_key("v1", "checkout", "a").hex() == of_decision
    assert key_of_ascii(b"v1", of_flag("checkout", "a").encode()).hex() == of_decision
    without_variation = decision_key("v1", "checkout", None)
    assert without_variation.hex() == "ffd8cccd8bc6f22ebe7743972a37baca"
    assert key_of_ascii(b"v1", of_flag("checkout", None).encode()) == without_variation
    assert event_key("e1").hex() == "c6180489cd417a1485c3dc0aab726a5f"
    keyed = LedgerIds(b"k" * 32)
    assert keyed.of("v1") == "keyed:bc880230f9e90c934fce44f21eed36b3"
    assert keyed.dedupe_key(bytes.fromhex(of_decision)).hex() == "d64e77e10be9174174b1e500c9184432"
    assert name_of_lane("v" * 300) == "long id 908eee802762078254cbe59bfba51a43"


def test_texts_and_ids_are_short_up_to_the_limit() -> None:
    longest = "x" * MAX_TEXT_CHARACTERS
    assert cut(longest + "y") == cut(longest) == longest
    assert name_of_lane("v" * LONG_ID_CHARACTERS) == "v" * LONG_ID_CHARACTERS


# Replays

TRACKED, VALUED = Planned(Kind.TRACK), Planned(Kind.VISITOR_METADATA)
UNDECODED = Planned(Kind.UNKNOWN, ENDED)


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([], [TRACKED, VALUED]),
        ([("other", b"track")], [TRACKED, VALUED]),
        ([("flagpost-replay-kind", None)], [TRACKED, VALUED]),
        ([("flagpost-replay-kind", b"of a later release")], [TRACKED, VALUED]),
        ([("other", b"x"), ("flagpost-replay-kind", b"track")], [TRACKED]),
        ([("flagpost-replay-kind", b"visitor_metadata")], [VALUED]),
        ([("flagpost-replay-kind", b"unknown")], [TRACKED, VALUED]),
    ],
)
def test_only_the_dead_lettered_kind_of_a_replayed_record_is_sent(
    headers: Sequence[tuple[str, bytes | None]], kept: list[Planned]
) -> None:
    assert replayed_only([TRACKED, VALUED], headers) == kept


def test_a_replay_that_cannot_be_decoded_or_is_no_longer_planned_is_reported() -> None:
    headers = [("flagpost-replay-kind", b"track")]
    assert replayed_only([UNDECODED], headers) == [UNDECODED]
    (planned,) = replayed_only([VALUED], headers)
    assert (planned.kind, planned.ending and planned.ending.reason) == (Kind.TRACK, Reason.INVALID)
    assert planned.ending is not None
    assert planned.ending.detail.startswith("a replay of a delivery that the settings do not plan")


# The common part of decisions


def test_decisions_with_names_of_the_greatest_length_are_still_remembered() -> None:
    planner = Planner(Policy())
    names = {"variation": "v" * 100, "rule_key": "r" * 100, "rule_type": "experiment"}
    for more, count in ((1, 0), (0, 1)):
        flag = "f" * (MAX_LIKE_CHARACTERS - 200 - len("experiment") + more)
        planner.plan(decision("v", flag, **names), START_MS)
        assert len(planner._likenesses) == count


@pytest.mark.parametrize(
    ("policy", "event"),
    [
        (
            Policy(mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT)),
            decision("v", "x" * 600),
        ),
        (Policy(decisions=DecisionsSettings(flags_deny=["check*"])), decision("v")),
        (Policy(select=SelectSettings(environments=Patterns(allow=["*"]))), decision("v")),
        (Policy(), decision("v", "")),
        (Policy(can_send_metadata=False), decision("v")),
    ],
    ids=["breaks a rule", "filtered", "may not be selected", "without a flag", "without a key for metadata"],
)
def test_decisions_have_no_common_part_if_it_may_end_a_delivery(policy: Policy, event: Event) -> None:
    assert not isinstance(event, (TrackEvent, VisitorMetadata, AccountMetadata))
    assert Planner(policy).sent_likeness(event) is None


def test_the_common_part_of_decisions_has_their_values_under_pendos_names() -> None:
    planner = Planner(Policy())
    likeness = planner.sent_likeness(decision("v"))
    assert likeness is not None
    assert (likeness.variation, likeness.metadata) == ("a", {"[Optimizely] checkout": "a"})
    planner.fields = {("visitor", "custom"): {"[Optimizely] checkout": "optimizely_checkout"}}
    likeness = planner.sent_likeness(decision("w"))
    assert likeness is not None
    assert likeness.metadata == {"optimizely_checkout": "a"}
    planner.fields = {("visitor", "custom"): {}}
    assert planner.sent_likeness(decision("v")) is None, "its field is missing"
    without = Planner(Policy(decisions=DecisionsSettings(visitor_metadata=False))).sent_likeness(
        decision("v")
    )
    assert without is not None
    assert without.metadata == {}


def test_whether_a_decision_would_be_sent_agrees_with_planning() -> None:
    suppressions = Suppressions()
    suppressions.take([Suppression("gone", is_suppressed=True)])
    for required in (False, True):
        planner = Planner(Policy(consent=ConsentSettings(required=required)), suppressions)
        for visitor_id in ("v", "", "gone"):
            for occurred_at in (-600_000_001, -600_000_000, 0, 300_000, 300_001):
                event = decision(visitor_id, occurred_at=START_MS + occurred_at)
                planned = planner.plan(event, START_MS)[0]
                is_sent = planner.is_sent(visitor_id, START_MS + occurred_at, START_MS)
                assert is_sent is (planned.ending is None)
    early = Planner(Policy())
    assert [early.is_sent("v", occurred_at, 1_000) for occurred_at in (-1, 0)] == [False, True]


# The clock


def readings(check: ClockCheck, ahead_ms: int, at: float, count: int = 3) -> None:
    """Note records of `count` visitors, `ahead_ms` ahead of a local clock that shows 5,000,000 ms at second 0."""
    for number in range(count):
        timestamp_ms = 5_000_000 + int(at * 1000) + ahead_ms
        record = Record(0, number, timestamp_ms, b"%d" % number, b"", (), track(), fresh=True)
        check.note(record, Instant(at, 5_000_000 + int(at * 1000)))


TOO_FAR_AHEAD = Ending(Reason.INVALID, "ahead", by_clock=True)


@pytest.mark.parametrize(
    ("ahead_ms", "ending", "is_doubted"),
    [
        (300_000, TOO_FAR_AHEAD, False),
        (300_001, TOO_FAR_AHEAD, True),
        (-300_000, expired(1.0), False),
        (-300_001, expired(1.0), True),
        (900_000, None, False),
        (900_000, ENDED, False),
    ],
)
def test_a_clock_is_doubted_beyond_the_limit_for_events_in_the_future(
    ahead_ms: int, ending: Ending | None, is_doubted: bool
) -> None:
    check = ClockCheck(300.0)
    readings(check, ahead_ms, at=100.0)
    assert check.doubts(ending, Instant(700.0, 5_700_000)) is is_doubted, "also some time after the reading"


def test_two_visitors_prove_nothing_about_the_clock() -> None:
    check = ClockCheck(0.0)
    readings(check, 900_000, at=1.0, count=2)
    assert not check.doubts(TOO_FAR_AHEAD, Instant(1.0, 5_001_000))


def test_only_the_latest_readings_count() -> None:
    check = ClockCheck(300.0)
    readings(check, 900_000, at=1.0, count=10 * READINGS)
    readings(check, 0, at=2.0, count=READINGS)
    assert not check.doubts(TOO_FAR_AHEAD, Instant(2.0, 5_002_000))
    readings(check, -900_000, at=3.0, count=READINGS)
    assert check.doubts(expired(1.0), Instant(3.0, 5_003_000))


def test_an_ending_by_the_clock_says_so() -> None:
    assert expired(60.0).by_clock
    ahead = plan(dataclasses.replace(track(), occurred_at=START_MS + 300_001))[0].ending
    assert ahead is not None
    assert ahead.by_clock
