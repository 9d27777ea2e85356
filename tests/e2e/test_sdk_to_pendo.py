"""From decide() of the real optimizely-sdk, through a real Kafka, to what Pendo receives: no mocks in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter

import pytest
from optimizely.decision.optimizely_decide_option import OptimizelyDecideOption
from optimizely.decision.optimizely_decision import OptimizelyDecision

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint
from flagpost_publisher import Publisher
from optimizely_fixtures import (
    EVERYONE,
    TARGETED,
    changing_client,
    flag,
    optimizely_client,
    rule,
    user_of,
    variation,
)
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, eventually, total
from scenes import Scene
from traffic import tracks

FLAGS = ("checkout", "banner", "legacy", "bare", "held")


def expected_properties(decision: OptimizelyDecision) -> str:
    """A decision's properties as docs/contract.md#requests-to-pendo spells them, written here by hand."""
    members: dict[str, object] = {"flag_key": decision.flag_key}
    if not decision.enabled:
        members["variation_key"] = "off"
    elif decision.variation_key is not None:
        members["variation_key"] = decision.variation_key
    if decision.rule_key is not None:
        members["rule_key"] = decision.rule_key
    members["enabled"] = decision.enabled
    return json.dumps(members, separators=(",", ":"))


@pytest.mark.kafka_core
async def test_pendo_receives_what_was_decided_and_nothing_else(scene: Scene) -> None:
    client = optimizely_client()
    expected: Counter[str] = Counter()
    with Publisher(
        bootstrap_servers=scene.kafka.bootstrap_servers,
        topic=scene.topic,
        service="shop",
        account_id="account",
    ) as publisher:
        publisher.attach(client)
        for number in range(40):
            user = user_of(client, f"user-{number}", {"account": f"acme-{number % 3}", "plan": "pro"})
            decided = [user.decide("checkout"), *user.decide_for_keys(["banner", "legacy"]).values()]
            decided += user.decide_all([OptimizelyDecideOption.DISABLE_DECISION_EVENT]).values()
            for properties in {expected_properties(decision) for decision in decided}:
                expected[f'"visitorId":"user-{number}","accountId":"acme-{number % 3}"|{properties}'] = 1
        assert publisher.flush(stretched(20)) == 0
        stats = publisher.stats()
    # Each of three flags was decided twice, once without an impression: for the publisher the two are no duplicates.
    assert stats.delivered == stats.accepted == expected.total() + 40 * 3
    assert stats.duplicates == 0
    with scene.consume() as consumer:
        received = scene.pendo.received
        await received.until(lambda: received.recorded() == expected.total(), 60)
        await consumer.caught_up(scene.partitions)
        assert total(consumer.scrape(), "flagpost_deliveries_total", reason="dedupe") == 40 * 3
        assert await consumer.stop() == 0
    seen: Counter[str] = Counter()
    for request in tracks(received):
        head, _, rest = request.body.decode().partition(',"timestamp":')
        milliseconds, _, tail = rest.partition(',"properties":')
        properties, _, context = tail.partition(',"context":')
        assert milliseconds.isdigit()
        assert context == "{}}"
        beginning = '{"type":"track","event":"Experiment Viewed",'
        assert head.startswith(beginning)
        seen[f"{head.removeprefix(beginning)}|{properties}"] += 1
    assert seen == expected
    assert not [v for v in received.violations if v.endpoint is Endpoint.METADATA]


@pytest.mark.parametrize("sends_all", [True, False])
async def test_experiments_only_sends_experiments_whatever_the_datafile_has_impressions_for(
    sends_all: bool, scene: Scene
) -> None:
    """When a rollout becomes an experiment with the same variation, its decisions are sent at once."""
    client, manager = changing_client(sendFlagDecisions=sends_all, **TARGETED)
    experiment = rule("500", "banner_test", [variation("501", "on", on=True)], [EVERYONE])
    with Publisher(bootstrap_servers=scene.kafka.bootstrap_servers, topic=scene.topic) as publisher:
        publisher.attach(client)
        for number in range(10):
            user_of(client, f"user-{number}").decide_all()
        manager.exchange(
            revision="4",
            sendFlagDecisions=sends_all,
            experiments=[experiment],
            featureFlags=[flag("f2", "banner", ["500"], "")],
            localHoldouts=[],
        )
        for number in range(10):
            user_of(client, f"user-{number}").decide_all()
        assert publisher.flush(stretched(20)) == 0
    settings = {"decisions__experiments_only": True, "decisions__rule_type_property": True}
    with scene.consume(**settings) as consumer:
        await consumer.caught_up(scene.partitions)
        reasons = {"reason": "not_dispatched", "kind": "track"}
        await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_total", **reasons) == 50)
        received = scene.pendo.received
        await received.until(lambda: received.recorded() == 20, 60)
        assert await consumer.stop() == 0
    properties = [json.loads(request.body)["properties"] for request in tracks(received)]
    sent = Counter((each["flag_key"], each["rule_type"]) for each in properties)
    assert sent == {("checkout", "experiment"): 10, ("banner", "experiment"): 10}


async def test_the_variations_shown_to_visitors_are_stored_in_their_metadata(scene: Scene) -> None:
    client = optimizely_client()
    shown: dict[str, dict[str, str | None]] = {}
    with Publisher(bootstrap_servers=scene.kafka.bootstrap_servers, topic=scene.topic) as publisher:
        publisher.attach(client)
        for number in range(25):
            decisions = user_of(client, f"user-{number}").decide_all()
            shown[f"user-{number}"] = {
                f"[Optimizely] {flag}": decision.variation_key if decision.enabled else "off"
                for flag, decision in decisions.items()
            }
        assert publisher.flush(stretched(20)) == 0
    with scene.consume() as consumer:
        await eventually(
            lambda: total(consumer.scrape(), "flagpost_deliveries_total", kind="visitor_metadata") == 25 * 5
        )
        assert await consumer.stop() == 0
    stored: dict[str, dict[str, str]] = {}
    requests = scene.pendo.received.of(Endpoint.METADATA)
    for request in requests:
        for entry in request.parsed:  # type: ignore[attr-defined]
            stored.setdefault(entry["visitorId"], {}).update(entry["values"])
    assert stored == shown
    assert len(requests) <= 3


async def test_the_demo_adds_up_on_the_users_own_kafka(kafka: KafkaBroker) -> None:
    command = [
        str(FLAGPOST), "demo", "--json", "--seconds", "4", "--rate", "60",
        "--bootstrap-servers", kafka.bootstrap_servers,
    ]  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=stretched(120)
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert (table["unexplained"], table["disagreements"]) == (0, [])
    decided = sum(row["decided"] for row in table["rows"])
    assert decided == table["decided"] > 100
    published = sum(row["published"] for row in table["rows"])
    assert decided == published + table["removed_at_source"]
    for row in table["rows"]:
        assert row["published"] == row["delivered"] + row["duplicate"] + row["pending"]
        assert row["pendo"]["counted"] == row["delivered"]
    left = [
        name
        for name in kafka.admin().list_topics(timeout=stretched(10)).topics
        if name.startswith("flagpost-demo")
    ]
    assert left == []


@pytest.mark.thorough
async def test_the_demo_needs_nothing_and_ends_at_ctrl_c() -> None:
    command = [str(FLAGPOST), "demo", "--seconds", "600"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    while (
        b" delivered" not in (line := await asyncio.wait_for(process.stdout.readline(), stretched(60)))
        or b" 0 del" in line
    ):
        assert line
    os.killpg(process.pid, signal.SIGINT)  # like a terminal: to the whole foreground process group
    out, errors = await asyncio.wait_for(process.communicate(), stretched(90))
    assert process.returncode == 0, errors.decode()
    assert b"Everything adds up; nothing is unexplained." in out
    assert errors == b""
