"""Which fields are wanted, which of them Pendo lacks, and which of them `flagpost check` says to create."""

from __future__ import annotations

from typing import Any

import pytest

from engine_world import decision as decision_at
from flagpost_consumer.commands.check.fields import (
    MAX_LISTED,
    WantedField,
    check_fields,
    judge_fields,
    segment_name,
    wanted_fields,
)
from flagpost_consumer.commands.check.results import Status, hanging
from flagpost_consumer.commands.sources.newest_events import Sample
from flagpost_consumer.core.planning.plan import FieldCatalog
from flagpost_consumer.settings import Settings
from flagpost_schemas import (
    AccountMetadata,
    DecisionEvent,
    Event,
    MetadataGroup,
    MetadataValue,
    VisitorMetadata,
)
from newest_sample import sample_read

LONG_AGO_MS = 1_700_000_000_000
"""Metadata is sent however old it is."""

CATALOG: FieldCatalog = {
    ("visitor", "custom"): {"[Optimizely] checkout": "optimizely_checkout"},
    ("visitor", "agent"): {},
    ("account", "custom"): {"tier": "tier"},
    ("account", "agent"): {},
}


def settings(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"pendo": {"integration_key": "key"}, **sections})


def visitor(group: MetadataGroup = MetadataGroup.CUSTOM, **values: MetadataValue) -> VisitorMetadata:
    return VisitorMetadata(event_id="e", occurred_at=LONG_AGO_MS, visitor_id="v", group=group, values=values)


def decision(visitor_id: str, flag: str, variation: str | None = "a", **fields: object) -> DecisionEvent:
    return decision_at(visitor_id, flag, variation, occurred_at=LONG_AGO_MS, **fields)


def test_the_fields_of_the_traffic_are_wanted_with_their_types() -> None:
    events: list[Event] = [
        decision("v", "banner"),
        visitor(plan="pro", seats=3, share=0.5, trial=True, tags=["a"]),
        AccountMetadata(event_id="e", occurred_at=LONG_AGO_MS, account_id="a", values={"tier": 2}),
    ]
    assert wanted_fields(settings(), events) == {
        WantedField("visitor", "custom", "[Optimizely] banner"): "text",
        WantedField("visitor", "custom", "plan"): "text",
        WantedField("visitor", "custom", "seats"): "number",
        WantedField("visitor", "custom", "share"): "number",
        WantedField("visitor", "custom", "trial"): "boolean",
        WantedField("visitor", "custom", "tags"): "list",
        WantedField("account", "custom", "tier"): "number",
    }


@pytest.mark.parametrize(
    ("event", "sections"),
    [
        (decision("", "banner"), {}),
        (decision("v", "banner", None), {}),
        (decision("v", "banner", consent={"analytics": False}), {}),
        (decision("v", "banner"), {"decisions": {"flags_deny": ["ban*"]}}),
        (decision("v", "banner"), {"decisions": {"visitor_metadata": False}}),
        (decision("v", "banner", event_id="e" * 129), {}),
    ],
)
def test_metadata_that_is_not_sent_wants_no_field(event: Any, sections: dict[str, Any]) -> None:
    assert wanted_fields(settings(**sections), [event]) == {}


def test_fields_of_settings_and_traffic_are_one_list() -> None:
    named = settings(metrics={"flags": ["checkout", "banner"]})
    wanted = wanted_fields(named, [decision("v", "banner"), decision("v", "search")])
    assert {field.name for field in wanted} == {
        f"[Optimizely] {flag}" for flag in ("checkout", "banner", "search")
    }


def test_a_field_that_gets_values_of_several_types_must_be_text_and_a_null_wants_none() -> None:
    events = [visitor(plan=3), visitor(plan="pro"), visitor(plan=None, gone=None)]
    assert wanted_fields(settings(), events) == {WantedField("visitor", "custom", "plan"): "text"}


def test_a_field_that_gets_times_is_a_date_as_import_says() -> None:
    """Before the fix, `import` named the type date, and `check` the type text, for the same field."""
    events = [visitor(since="2026-01-31T12:00:00Z", day="2026-01-31", note="at 12:00")]
    assert {field.name: type_ for field, type_ in wanted_fields(settings(), events).items()} == {
        "since": "date",
        "day": "text",
        "note": "text",
    }


def test_a_display_name_is_created_in_two_steps_so_that_segments_can_use_the_field() -> None:
    check = judge_fields({WantedField("visitor", "custom", "[Optimizely] banner"): "text"}, CATALOG)
    assert check.status is Status.WARN
    assert check.detail == "Pendo lacks 1 of 1 field; their values are dropped"
    assert check.fix.splitlines() == [
        "in Pendo, Settings > Data Mappings > Visitor, Add Custom Field:",
        '  optimizely_banner of type text, then change its display name to "[Optimizely] banner"',
    ]


def test_each_tab_and_the_install_script_are_distinguished() -> None:
    wanted = {
        WantedField("visitor", "custom", "seats"): "number",
        WantedField("visitor", "agent", "role"): "text",
        WantedField("account", "custom", "trial"): "boolean",
        WantedField("account", "custom", "tier"): "number",
    }
    assert judge_fields(wanted, CATALOG).fix.splitlines() == [
        "in Pendo, Settings > Data Mappings > Visitor, Add Custom Field:",
        "  seats of type number",
        "in Pendo, Settings > Data Mappings > Account, Add Custom Field:",
        "  trial of type boolean",
        "let Pendo's install script send these once, or send group custom instead of agent:",
        '  "role" of visitors',
    ]


def test_fields_that_pendo_has_under_either_name_are_ok() -> None:
    wanted = {
        WantedField("visitor", "custom", "[Optimizely] checkout"): "text",
        WantedField("account", "custom", "tier"): "number",
    }
    check = judge_fields(wanted, CATALOG)
    assert (check.status, check.detail) == (
        Status.OK,
        "Pendo has all 2 fields that the settings name or the newest events set",
    )


def test_a_group_that_cannot_be_read_is_named() -> None:
    check = judge_fields({WantedField("account", "custom", "tier"): "number"}, {("visitor", "custom"): {}})
    assert check.status is Status.WARN
    assert "schema of account custom metadata cannot be read" in check.detail


def test_nine_fields_are_nine_short_lines() -> None:
    """Before the fix, they were one sentence of 500 characters."""
    wanted = {WantedField("visitor", "custom", f"[Optimizely] flag-{n}"): "text" for n in range(9)}
    check = judge_fields(wanted, CATALOG)
    assert len(check.fix.splitlines()) == 1 + 9
    assert max(map(len, (check.detail, *check.fix.splitlines()))) <= 90
    assert hanging(check.fix, 4).splitlines()[1].startswith("      optimizely_flag_0 of type text")


@pytest.mark.parametrize(("named", "words"), [(None, "nothing was compared"), ("checkout", "the one field")])
async def test_if_no_events_could_be_read_the_fields_are_not_reported_as_ok(
    named: str | None, words: str
) -> None:
    async def get_json(_path: str) -> bytes:
        return b'{"custom": {"optimizely_checkout": {"DisplayName": "[Optimizely] checkout"}}}'

    given = settings(metrics={"flags": [] if named is None else [named]})
    check = await check_fields(get_json, given, sample_read(Sample(unread="Kafka does not answer")))
    assert check.status is Status.WARN
    assert words in check.detail
    assert "Kafka does not answer" in check.detail


def test_a_long_list_is_cut_and_says_so() -> None:
    wanted = {WantedField("visitor", "custom", f"f{number:02}"): "text" for number in range(MAX_LISTED + 5)}
    check = judge_fields(wanted, CATALOG)
    assert check.fix.endswith("\n  and 5 more")
    assert "f19" in check.fix
    assert "f20" not in check.fix


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("plan", "plan"),
        ("Plan_Type", "Plan_Type"),
        ("[Optimizely] new-checkout", "optimizely_new_checkout"),
        ("2nd", "_2nd"),
        ("???", "field"),
        ("", "field"),
    ],
)
def test_a_name_for_segments(name: str, segment: str) -> None:
    assert segment_name(name) == segment
