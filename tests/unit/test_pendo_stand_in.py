"""The stand-in enforces Pendo's rules: each rule is broken once over real HTTP, and the stand-in reports it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest

from flagpost_consumer.demo.pendo_stand_in import (
    HANG,
    Endpoint,
    Enforcement,
    Fate,
    Group,
    Keys,
    Kind,
    MetadataField,
    PendoStandIn,
    Rule,
    StandInConfig,
    UnmappedFields,
)
from flagpost_consumer.demo.pendo_stand_in.rules import Pace

JSON = "application/json"
CHECKOUT = MetadataField("optimizely_checkout", "[Optimizely] checkout")


def track_event(**changes: object) -> dict[str, object]:
    """Return a valid track event with changes; a change to None leaves the member out."""
    event = {
        "type": "track",
        "event": "Experiment Viewed",
        "visitorId": "v1",
        "accountId": "a1",
        "timestamp": time.time_ns() // 1_000_000,
        "properties": {"flag_key": "checkout", "variation_key": "treatment", "enabled": True},
        "context": {"ip": "192.0.2.1", "userAgent": "UA", "url": "https://x.test/", "title": "T"},
    }
    return {name: value for name, value in {**event, **changes}.items() if value is not None}


class Client:
    """An HTTP client of Pendo that can also send invalid requests."""

    def __init__(self, pendo: PendoStandIn, session: aiohttp.ClientSession) -> None:
        self._pendo, self._session = pendo, session

    async def send(
        self, method: str, path: str, body: object = b"", *, key: str, content_type: str = JSON
    ) -> tuple[int, bytes]:
        headers = {"x-pendo-integration-key": key, "content-type": content_type}
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self._session.request(
            method, self._pendo.url + path, data=data, headers=headers
        ) as answer:
            return answer.status, await answer.read()

    async def track(self, body: object, *, key: str | None = None, content_type: str = JSON) -> int:
        secret = self._pendo.keys.track_secret if key is None else key
        return (await self.send("POST", "/data/track", body, key=secret, content_type=content_type))[0]

    async def metadata(
        self,
        body: object,
        *,
        target: str = "visitor/custom",
        query: str = "?create=true",
        key: str | None = None,
    ) -> tuple[int, Any]:
        api_key = self._pendo.keys.integration_key if key is None else key
        path = f"/api/v1/metadata/{target}/value{query}"
        status, answer = await self.send("POST", path, body, key=api_key)
        return status, orjson.loads(answer) if answer else None

    async def get(self, path: str, *, key: str | None = None) -> tuple[int, bytes]:
        api_key = self._pendo.keys.integration_key if key is None else key
        return await self.send("GET", path, key=api_key)


@asynccontextmanager
async def standing_in(**settings: Any) -> AsyncIterator[tuple[PendoStandIn, Client]]:
    async with PendoStandIn(StandInConfig(**settings)) as pendo, aiohttp.ClientSession() as session:
        yield pendo, Client(pendo, session)


def rules_broken(pendo: PendoStandIn) -> list[Rule]:
    return [violation.rule for violation in pendo.received.violations]


def record(identity: str, **values: object) -> dict[str, object]:
    return {"visitorId": identity, "values": values or {"optimizely_checkout": "treatment"}}


# One visitor or account


async def test_the_metadata_of_a_visitor_or_an_account_is_returned_by_its_id() -> None:
    async with standing_in() as (pendo, client):
        await client.metadata([record("a/b ü", plan="pro")])
        await client.metadata([{"accountId": "acme", "values": {"seats": 5}}], target="account/agent")
        status, answer = await client.get("/api/v1/visitor/a%2Fb%20%C3%BC")
        assert (status, orjson.loads(answer)) == (
            200,
            {"id": "a/b ü", "metadata": {"auto": {"id": "a/b ü"}, "custom": {"plan": "pro"}, "agent": {}}},
        )
        _, answer = await client.get("/api/v1/account/acme")
        assert orjson.loads(answer)["metadata"]["agent"] == {"seats": 5}
        assert (await client.get("/api/v1/visitor/acme"))[0] == 404
        assert (await client.get("/api/v1/visitor/"))[0] == 404
        assert (await client.get("/api/v1/account/acme", key="wrong"))[0] == pendo.keys.refused_status
        assert len(pendo.received.of(Endpoint.DETAILS)) == 4


# Track events that are allowed


async def test_a_track_event_is_recorded_as_it_came() -> None:
    async with standing_in() as (pendo, client):
        body = orjson.dumps(track_event())
        before = time.monotonic()
        status, answer = await client.send("POST", "/data/track", body, key=pendo.keys.track_secret)

        assert (status, answer) == (200, b"")
        (received,) = pendo.received
        assert received.body == body
        assert received.parsed == orjson.loads(body)
        assert (received.endpoint, received.path) == (Endpoint.TRACK, "/data/track")
        assert (received.visitor_id, received.status, received.fate) == ("v1", 200, Fate.RECORDED)
        assert before <= received.at_seconds <= time.monotonic()
        assert abs(received.wall_ms - time.time_ns() // 1_000_000) < 60_000
        assert not pendo.received.violations


async def test_counters_and_queries_return_what_was_recorded() -> None:
    async with standing_in(visitor_interval_seconds=0) as (pendo, client):
        again = track_event(visitorId="v2", timestamp=time.time_ns() // 1_000_000)
        for event in (track_event(), again, again, track_event(properties={"flag_key": "open"})):
            assert await client.track(event) == 200
        assert await client.track(track_event(event="Order", properties={"total": 3.5})) == 200

        received = pendo.received
        assert received.recorded() == 5
        assert received.decisions == {("checkout", "treatment"): 3, ("open", None): 1}
        assert received.events == {"Experiment Viewed": 4, "Order": 1}
        assert [one.number for one in received.of_visitor("v2")] == [1, 2]
        assert received.repeats() == 1
        assert received.repeated_bodies() == {orjson.dumps(again): 2}
        assert received.counts()["outcomes"] == {"track": {"200": 5}}


async def test_without_bodies_the_counters_stay_exact_and_memory_bounded() -> None:
    async with standing_in(keep_bodies=False, newest_kept=2, visitor_interval_seconds=0) as (pendo, client):
        for number in range(5):
            await client.track(track_event(visitorId=f"v{number}"))
        assert pendo.received.recorded() == pendo.received.total == 5
        assert [(one.number, one.body) for one in pendo.received] == [(3, b""), (4, b"")]
        assert [one.number for one in pendo.received.since(0, 10)] == [3, 4]


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"_a": 1, "a_": 2.5, "A1": "text", "_": False},
        {"a" * 31: ""},
        {"errors": 1, "error_": 2},
        {"t": "x" * (511 - len('{"t":""}'))},
    ],
)
async def test_properties_within_the_rules_are_taken(properties: dict[str, object]) -> None:
    async with standing_in() as (pendo, client):
        assert await client.track(track_event(properties=properties)) == 200
        assert not pendo.received.violations


async def test_optional_members_may_be_missing() -> None:
    async with standing_in() as (pendo, client):
        assert await client.track(track_event(accountId=None, context={})) == 200
        assert not pendo.received.violations


# Track events that break a rule


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        (b"{", Rule.JSON),
        (b"[]", Rule.JSON),
        (b'{"properties":{"a":NaN}}', Rule.JSON),
        (b"\xff", Rule.JSON),
        (track_event(type="page"), Rule.MEMBERS),
        (track_event(event=""), Rule.MEMBERS),
        (track_event(event=3), Rule.MEMBERS),
        (track_event(visitorId=None), Rule.MEMBERS),
        (track_event(visitorId=7), Rule.MEMBERS),
        (track_event(accountId=""), Rule.MEMBERS),
        (track_event(extra=1), Rule.MEMBERS),
        (track_event(properties=None), Rule.MEMBERS),
        (track_event(properties=[]), Rule.MEMBERS),
        (track_event(context=None), Rule.MEMBERS),
        (track_event(context={"user_agent": "x"}), Rule.MEMBERS),
        (track_event(context={"ip": 4}), Rule.MEMBERS),
        (track_event(timestamp=None), Rule.TIMESTAMP),
        (track_event(timestamp="2026-11-01T00:00:00Z"), Rule.TIMESTAMP),
        (track_event(timestamp=1.5e12), Rule.TIMESTAMP),
        (track_event(timestamp=True), Rule.TIMESTAMP),
        (track_event(properties={"a b": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"prix_é": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"1st": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"a" * 32: 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"__a": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"a__": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"error": 1}), Rule.PROPERTY_NAME),
        (track_event(properties={"a": {}}), Rule.PROPERTY_VALUE),
        (track_event(properties={"a": [1]}), Rule.PROPERTY_VALUE),
        (track_event(properties={"a": None}), Rule.PROPERTY_VALUE),
        (track_event(properties={"t": "x" * (512 - len('{"t":""}'))}), Rule.PROPERTIES_SIZE),
        (track_event(properties={"t": "é" * 252}), Rule.PROPERTIES_SIZE),
    ],
)
async def test_a_broken_rule_is_refused_and_recorded_as_a_violation(body: object, broken: Rule) -> None:
    async with standing_in() as (pendo, client):
        assert await client.track(body) == 400
        assert rules_broken(pendo) == [broken]
        assert pendo.received.recorded() == 0
        assert pendo.received.violations[0].request == 0


async def test_a_violation_names_the_visitor() -> None:
    async with standing_in() as (pendo, client):
        await client.track(track_event(visitorId="v9", properties={"a b": 1}))
        (violation,) = pendo.received.violations
        assert violation.id == "v9"
        assert "'a b'" in violation.detail


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_refused(content_type: str) -> None:
    async with standing_in() as (pendo, client):
        assert await client.track(track_event(), content_type=content_type) == 400
        assert rules_broken(pendo) == [Rule.CONTENT_TYPE]


async def test_a_charset_is_allowed() -> None:
    async with standing_in() as (pendo, client):
        assert await client.track(track_event(), content_type="application/json; charset=utf-8") == 200
        assert not pendo.received.violations


async def test_lenient_stand_ins_record_violations_and_take_the_event() -> None:
    async with standing_in(on_bad_request=Enforcement.RECORD) as (pendo, client):
        assert await client.track(track_event(properties={"1st": 1})) == 200
        assert rules_broken(pendo) == [Rule.PROPERTY_NAME]
        assert pendo.received.recorded() == 1


async def test_events_older_than_seven_days_are_answered_200_and_ignored() -> None:
    async with standing_in(visitor_interval_seconds=0) as (pendo, client):
        week_ms = 7 * 24 * 3600 * 1000
        now_ms = time.time_ns() // 1_000_000
        assert await client.track(track_event(timestamp=now_ms - week_ms - 60_000)) == 200
        assert await client.track(track_event(timestamp=now_ms - week_ms + 60_000)) == 200
        assert [one.fate for one in pendo.received] == [Fate.IGNORED, Fate.RECORDED]
        assert pendo.received.recorded() == sum(pendo.received.decisions.values()) == 1


# Pace


@pytest.mark.parametrize(("on_pace", "status"), [(Enforcement.REFUSE, 429), (Enforcement.RECORD, 200)])
async def test_two_requests_of_a_visitor_too_close_together(on_pace: Enforcement, status: int) -> None:
    async with standing_in(on_pace=on_pace, visitor_interval_seconds=60.0) as (pendo, client):
        assert await client.track(track_event(visitorId="hot")) == 200
        assert await client.track(track_event(visitorId="other")) == 200
        assert await client.track(track_event(visitorId="hot")) == status
        (violation,) = pendo.received.violations
        assert (violation.rule, violation.id, violation.request) == (Rule.PACE, "hot", 2)


async def test_requests_that_fail_count_for_the_pace_too() -> None:
    async with standing_in(visitor_interval_seconds=60.0) as (pendo, client):
        pendo.faults.visitor("v1", 500)
        assert await client.track(track_event()) == 500
        assert await client.track(track_event()) == 429
        assert rules_broken(pendo) == [Rule.PACE]


async def test_no_interval_allows_any_pace() -> None:
    async with standing_in(visitor_interval_seconds=0) as (pendo, client):
        assert [await client.track(track_event()) for _ in range(3)] == [200] * 3
        assert not pendo.received.violations


def test_pace_is_measured_between_arrivals() -> None:
    pace = Pace(1.0)
    times = (100.0, 101.0, 101.999, 102.999, 103.5, 104.5)
    assert [pace.arrive("v", now) is None for now in times] == [True, True, False, True, False, True]


def test_pace_remembers_across_many_other_visitors_and_forgets_in_the_end() -> None:
    pace = Pace(1.0)
    pace.arrive("v", 10.0)
    for number in range(95):
        pace.arrive(f"other-{number}", 10.0 + number / 100)
    assert pace.arrive("v", 10.96) is not None
    for second in range(12, 20):
        pace.arrive("other", float(second))
    assert len(pace._older) + len(pace._newer) == 2


# Keys


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_keys_are_refused_with_an_empty_body(status: int) -> None:
    async with standing_in(keys=Keys("track", "api", refused_status=status)) as (pendo, client):
        assert await client.track(track_event(), key="api") == status
        assert await client.metadata([record("v1")], key="track") == (status, None)
        assert await client.get("/api/v1/metadata/schema/visitor", key="nobody") == (status, b"")
        assert await client.get("/api/v1/token/verify", key="nobody") == (status, b"")
        assert pendo.received.recorded() == pendo.received.recorded(Endpoint.METADATA) == 0
        assert not pendo.received.violations


async def test_keys_change_at_run_time() -> None:
    async with standing_in(visitor_interval_seconds=0) as (pendo, client):
        old = pendo.keys.track_secret
        pendo.keys = Keys(track_secret="rotated", integration_key="rotated too")
        assert await client.track(track_event(), key=old) == 403
        assert await client.track(track_event(), key="rotated") == 200


async def test_the_key_header_is_a_setting() -> None:
    config = StandInConfig(key_header="x-track-secret")
    async with PendoStandIn(config) as pendo, aiohttp.ClientSession() as session:
        headers = {"x-track-secret": pendo.keys.track_secret, "content-type": JSON}
        async with session.post(pendo.track_url, data=orjson.dumps(track_event()), headers=headers) as answer:
            assert answer.status == 200


def test_keys_are_not_in_repr() -> None:
    shown = repr(StandInConfig(keys=Keys("hidden-track", "hidden-api")))
    assert "hidden" not in shown


async def test_a_token_can_be_verified() -> None:
    async with standing_in() as (_, client):
        status, body = await client.get("/api/v1/token/verify")
        assert (status, orjson.loads(body)) == (200, {"valid": True, "writeAccess": True})


async def test_a_read_only_key_reads_and_writes_nothing() -> None:
    async with standing_in() as (pendo, client):
        pendo.keys = replace(pendo.keys, may_write=False)
        _, verified = await client.get("/api/v1/token/verify")
        status, body = await client.metadata([record("v", plan="pro")])
    assert orjson.loads(verified) == {"valid": True, "writeAccess": False}
    assert (status, body) == (403, None)
    assert pendo.metadata.values(Kind.VISITOR, "v") == {}


# Metadata


async def test_metadata_is_stored_by_id_and_group() -> None:
    async with standing_in() as (pendo, client):
        values = {"text": "x", "number": 3, "list": ["a", "b"], "nothing": None}
        status, answer = await client.metadata([record("v1", **values), record("v2")])
        assert (status, answer) == (200, {"total": 2, "updated": 2, "failed": 0, "missing": [], "errors": []})
        await client.metadata([record("v1", text="y")])
        await client.metadata([record("v1", agent_field=True)], target="visitor/agent")

        assert pendo.metadata.values(Kind.VISITOR, "v1") == {**values, "text": "y"}
        assert pendo.metadata.values(Kind.VISITOR, "v1", Group.AGENT) == {"agent_field": True}
        assert pendo.metadata.values(Kind.ACCOUNT, "v1") == {}
        assert pendo.received.metadata_records == 4
        assert not pendo.received.violations


async def test_account_metadata_has_account_ids() -> None:
    async with standing_in() as (pendo, client):
        body = [{"accountId": "a1", "values": {"plan": "gold"}}]
        assert (await client.metadata(body, target="account/custom"))[0] == 200
        assert pendo.metadata.values(Kind.ACCOUNT, "a1") == {"plan": "gold"}
        assert (await client.metadata([record("v1")], target="account/custom"))[0] == 400
        assert rules_broken(pendo) == [Rule.MEMBERS]


async def test_without_create_unknown_ids_are_missing() -> None:
    async with standing_in() as (pendo, client):
        pendo.metadata.add(Kind.VISITOR, "v1")
        status, answer = await client.metadata([record("v1"), record("v2")], query="")
        assert status == 200
        assert answer == {"total": 2, "updated": 1, "failed": 1, "missing": ["v2"], "errors": []}
        assert pendo.metadata.values(Kind.VISITOR, "v2") == {}


async def test_given_ids_fail_and_are_named() -> None:
    async with standing_in() as (pendo, client):
        pendo.faults.failing_ids["v2"] = "value is not allowed"
        _, answer = await client.metadata([record("v1"), record("v2")])
        assert answer["errors"] == [{"index": 1, "id": "v2", "error": "value is not allowed"}]
        assert (answer["updated"], answer["failed"]) == (1, 1)
        assert pendo.metadata.values(Kind.VISITOR, "v2") == {}


async def test_errors_can_name_the_record_in_other_ways() -> None:
    async with standing_in(error_members=("visitorId", "accountId")) as (pendo, client):
        pendo.faults.failing_ids.update(v2="no", a2="no")
        _, answer = await client.metadata([record("v2")])
        assert answer["errors"] == [{"visitorId": "v2", "error": "no"}]
        body = [{"accountId": "a2", "values": {"plan": "gold"}}]
        _, answer = await client.metadata(body, target="account/custom")
        assert answer["errors"] == [{"accountId": "a2", "error": "no"}]


async def test_a_poisoned_id_turns_its_whole_batch_into_a_400_that_names_no_record() -> None:
    async with standing_in() as (pendo, client):
        pendo.faults.poisoned_ids.add("v2")
        assert await client.metadata([record("v1"), record("v2")]) == (400, {"error": "malformed request"})
        assert pendo.metadata.values(Kind.VISITOR, "v1") == {}
        assert (await client.metadata([record("v1")]))[0] == 200


async def test_values_over_1500_characters_fail_their_record() -> None:
    async with standing_in() as (_, client):
        _, answer = await client.metadata([record("v1", text="x" * 1500), record("v2", text="x" * 1501)])
        assert answer["errors"] == [
            {"index": 1, "id": "v2", "error": "value of text is over 1500 characters"}
        ]


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        (b"nonsense", Rule.JSON),
        ({"visitorId": "v1", "values": {"a": 1}}, Rule.JSON),
        ([], Rule.JSON),
        (["v1"], Rule.MEMBERS),
        ([{"visitorId": "v1"}], Rule.MEMBERS),
        ([{"visitorId": "v1", "values": {}}], Rule.MEMBERS),
        ([{"visitorId": 1, "values": {"a": 1}}], Rule.MEMBERS),
        ([{"visitorId": "v1", "values": {"a": 1}, "extra": 1}], Rule.MEMBERS),
        ([record("v1", nested={"a": 1})], Rule.MEMBERS),
        ([record("v1", mixed=["a", 1])], Rule.MEMBERS),
        ([record("v1"), record("v1")], Rule.METADATA_ID_TWICE),
        ([record(f"v{number}") for number in range(1001)], Rule.METADATA_COUNT),
    ],
)
async def test_a_broken_metadata_rule_is_refused_and_recorded(body: object, broken: Rule) -> None:
    async with standing_in() as (pendo, client):
        assert (await client.metadata(body))[0] == 400
        assert rules_broken(pendo) == [broken]
        assert pendo.received.metadata_records == 0


async def test_a_thousand_records_are_allowed() -> None:
    async with standing_in() as (pendo, client):
        _, answer = await client.metadata([record(f"v{number}") for number in range(1000)])
        assert answer["updated"] == 1000
        assert not pendo.received.violations


async def test_two_requests_in_flight_for_one_id_are_a_violation() -> None:
    async with standing_in() as (pendo, client):
        pendo.faults.next(Endpoint.METADATA, HANG)
        first = asyncio.create_task(client.metadata([record("v1"), record("v2")]))
        await pendo.received.until(lambda: pendo.received.total == 1)
        assert (await client.metadata([record("v3")]))[0] == 200
        assert not pendo.received.violations
        assert (await client.metadata([record("v2")]))[0] == 200
        (violation,) = pendo.received.violations
        assert (violation.rule, violation.id) == (Rule.METADATA_ID_IN_FLIGHT, "v2")
        assert pendo.received.most_in_flight[Endpoint.METADATA] == 2
        first.cancel()
        await asyncio.wait([first])


async def test_an_answered_request_is_no_longer_in_flight() -> None:
    async with standing_in() as (pendo, client):
        for _ in range(2):
            assert (await client.metadata([record("v1")]))[0] == 200
        assert not pendo.received.violations


# The metadata schema


async def test_the_schema_lists_fields_by_api_name() -> None:
    plan = MetadataField("plan", "Plan", Kind.ACCOUNT, Group.AGENT, "integer")
    async with standing_in(fields=(CHECKOUT, plan)) as (_, client):
        status, body = await client.get("/api/v1/metadata/schema/visitor")
        described = {"Type": "string", "DisplayName": "[Optimizely] checkout"}
        assert status == 200
        assert orjson.loads(body) == {"custom": {"optimizely_checkout": described}, "agent": {}}
        _, body = await client.get("/api/v1/metadata/schema/account")
        assert orjson.loads(body) == {
            "custom": {},
            "agent": {"plan": {"Type": "integer", "DisplayName": "Plan"}},
        }


@pytest.mark.parametrize(
    ("policy", "status", "stored"),
    [
        (UnmappedFields.ACCEPT, 200, {"[Optimizely] checkout": "on"}),
        (UnmappedFields.FAIL_RECORD, 200, {}),
        (UnmappedFields.REFUSE_BATCH, 400, {}),
    ],
)
async def test_a_field_is_known_by_its_api_name_only(
    policy: UnmappedFields, status: int, stored: dict[str, object]
) -> None:
    async with standing_in(fields=(CHECKOUT,), unmapped_fields=policy) as (pendo, client):
        by_display_name = record("v1", **{"[Optimizely] checkout": "on"})
        assert (await client.metadata([by_display_name]))[0] == status
        assert pendo.metadata.values(Kind.VISITOR, "v1") == stored
        _, answer = await client.metadata([record("v1", optimizely_checkout="off")])
        assert answer["updated"] == 1


async def test_fields_can_be_declared_at_run_time() -> None:
    async with standing_in(unmapped_fields=UnmappedFields.FAIL_RECORD) as (pendo, client):
        _, answer = await client.metadata([record("v1")])
        assert answer["errors"] == [
            {"index": 0, "id": "v1", "error": "field optimizely_checkout is not mapped"}
        ]
        pendo.metadata.declare([CHECKOUT])
        _, answer = await client.metadata([record("v1")])
        assert answer["updated"] == 1


# Unknown paths, waiting, reset


async def test_unknown_paths_are_404_and_other_methods_405() -> None:
    async with standing_in() as (pendo, client):
        assert (await client.send("POST", "/data/tracks", key="k"))[0] == 404
        assert (await client.send("POST", "/api/v1/metadata/visitor/salesforce/value", key="k"))[0] == 404
        assert (await client.send("GET", "/data/track", key="k"))[0] == 405
        assert pendo.received.total == 0


async def test_a_wait_that_times_out_reports_what_was_received() -> None:
    async with standing_in() as (pendo, client):
        await client.track(track_event())
        with pytest.raises(TimeoutError, match=r"not in 0\.01 s; .*'track': \{'200': 1\}"):
            await pendo.received.until(lambda: pendo.received.total == 2, timeout_seconds=0.01)


async def test_reset_forgets_requests_metadata_and_faults() -> None:
    async with standing_in(visitor_interval_seconds=60.0) as (pendo, client):
        await client.track(track_event())
        await client.track(track_event())
        await client.metadata([record("v1")])
        pendo.faults.outage(503)
        pendo.reset()
        assert (pendo.received.total, len(pendo.received), pendo.received.violations) == (0, 0, [])
        assert pendo.metadata.values(Kind.VISITOR, "v1") == {}
        assert await client.track(track_event()) == 200
        assert pendo.received[-1].number == 0
