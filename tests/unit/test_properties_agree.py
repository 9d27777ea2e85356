"""For each broken property rule, preview, the engine's request and the engine's counters agree."""

from __future__ import annotations

import json
from collections import Counter
from math import inf, nan
from random import Random
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from broken_properties import BROKEN, REPAIRS, SENT
from engine_world import START_MS, World
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.policy import MappingSettings, Policy, PropertiesPolicy
from flagpost_schemas import Scalar, TrackEvent


def track(rule: Rule | None = None, **properties: Scalar) -> TrackEvent:
    given = dict(BROKEN[rule]) if rule else properties
    return TrackEvent(event_id="e", occurred_at=START_MS, visitor_id="v", event="Clicked", properties=given)


def preview(rule: Rule, policy: PropertiesPolicy) -> dict[str, Any]:
    event = {
        "type": "track",
        "event_id": "e",
        "visitor_id": "v",
        "event": "Clicked",
        "properties": BROKEN[rule],
    }
    env = {"FLAGPOST_MAPPING__PROPERTIES_POLICY": policy.value}
    result = CliRunner().invoke(flagpost, ["preview", "--json"], input=json.dumps(event), env=env)
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def run(event: TrackEvent, policy: PropertiesPolicy = PropertiesPolicy.TRIM) -> World:
    world = World(Policy(mapping=MappingSettings(properties_policy=policy)), Random(1))
    world.publish(event)
    world.join()
    world.run()
    world.check_nothing_lost()
    return world


def test_every_rule_has_a_case() -> None:
    assert BROKEN.keys() == REPAIRS.keys() == SENT.keys() == set(Rule)
    assert all(REPAIRS[rule][rule] for rule in Rule)


@pytest.mark.parametrize("rule", Rule)
def test_preview_request_and_counter_agree(rule: Rule) -> None:
    shown = preview(rule, PropertiesPolicy.TRIM)
    world = run(track(rule))
    (sight,) = world.track_sights
    sent = orjson.loads(sight.body)["properties"]
    (request,) = shown["requests"]
    repairs = Counter(Rule(repair["rule"]) for repair in shown["repairs"])
    assert sent == SENT[rule]
    assert list(orjson.loads(request["body"])["properties"].items()) == list(sent.items())
    assert repairs == REPAIRS[rule] == world.members[0].engine.accounts.repairs
    assert all(repair["field"] in BROKEN[rule] for repair in shown["repairs"])


@pytest.mark.parametrize("rule", Rule)
def test_reject_names_the_rule_and_counts_nothing(rule: Rule) -> None:
    shown = preview(rule, PropertiesPolicy.REJECT)
    world = run(track(rule), PropertiesPolicy.REJECT)
    (settlement,) = world.settled[0, 0, Kind.TRACK]
    first = next(iter(REPAIRS[rule]))
    assert settlement.ending.reason is Reason.INVALID
    assert f"rule {first.value}: property " in settlement.ending.detail
    assert world.track_sights == []
    assert not world.members[0].engine.accounts.repairs
    assert shown == {
        "requests": [],
        "repairs": [],
        "settled": {"outcome": "dead_lettered", "reason": "invalid"},
    }


def test_a_reserved_name_is_a_warning_with_a_suggestion() -> None:
    event = {"type": "track", "visitor_id": "v", "event": "Clicked", "properties": {"error": "x"}}
    told = CliRunner().invoke(flagpost, ["preview"], input=json.dumps(event))
    assert "warning (name_reserved): error renamed to error_: " in told.stdout
    assert "have the service call it error_message or error_code" in told.stdout
    env = {"FLAGPOST_MAPPING__PROPERTIES_POLICY": "reject"}
    refused = CliRunner().invoke(flagpost, ["preview"], input=json.dumps(event), env=env)
    assert "have the service call it error_message or error_code" in refused.stdout


def test_an_event_that_is_not_sent_has_no_repairs() -> None:
    event = {"type": "track", "visitor_id": "", "event": "Clicked", "properties": {"2nd": 1}}
    shown = json.loads(CliRunner().invoke(flagpost, ["preview", "--json"], input=json.dumps(event)).stdout)
    assert shown == {
        "requests": [],
        "repairs": [],
        "settled": {"outcome": "dropped", "reason": "no_visitor_id"},
    }


@pytest.mark.parametrize("number", [nan, inf, -inf])
def test_numbers_that_json_does_not_have_are_never_sent(number: float) -> None:
    (sight,) = run(track(price=number, fine=1)).track_sights
    assert orjson.loads(sight.body)["properties"] == {"fine": 1}
    (settlement,) = run(track(price=number), PropertiesPolicy.REJECT).settled[0, 0, Kind.TRACK]
    assert settlement.ending.detail == 'property "price" is not a finite number; leave it out instead'
