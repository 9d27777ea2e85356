"""Pendo's own counts: the requests, the answers that are understood, and the errors if there are no counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from flagpost_consumer.commands.reconcile import pendo_counts
from flagpost_consumer.commands.reconcile.at_pendo import AtPendo, compare
from flagpost_consumer.commands.reconcile.counting import Counts
from flagpost_consumer.commands.reconcile.pendo_counts import (
    DAY_MS,
    Days,
    PendoNotCounting,
    count_decisions,
    days_of,
)
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_BEFORE_RECORDING,
    HANG,
    NOT_HTTP,
    Endpoint,
    Fault,
    PendoStandIn,
    StandInConfig,
)
from flagpost_consumer.settings import PendoSettings, Secret

TODAY = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
THESE_DAYS = Days(TODAY - DAY_MS, 2)


@pytest.fixture
async def pendo() -> AsyncIterator[PendoStandIn]:
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=0)) as running:
        yield running


def settings(pendo: PendoStandIn, key: str | None = None) -> PendoSettings:
    return PendoSettings(
        api_url=pendo.api_url, integration_key=Secret(pendo.keys.integration_key if key is None else key)
    )


async def send(
    pendo: PendoStandIn, event: str, at_ms: int, visitor_id: str = "v", **properties: object
) -> None:
    body = {"type": "track", "event": event, "visitorId": visitor_id, "timestamp": at_ms,
            "properties": properties, "context": {}}  # fmt: skip
    headers = {"x-pendo-integration-key": pendo.keys.track_secret}
    async with (
        aiohttp.ClientSession() as session,
        session.post(pendo.track_url, json=body, headers=headers) as answer,
    ):
        assert answer.status == 200


async def count(pendo: PendoStandIn, days: Days = THESE_DAYS, key: str | None = None) -> dict[Any, int]:
    found = await count_decisions(settings(pendo, key), "Experiment Viewed", days)
    return {row: at_pendo.events for row, at_pendo in found.items()}


async def test_visitors_are_counted_once_each(pendo: PendoStandIn) -> None:
    for visitor in ("v", "w", "v"):
        await send(pendo, "Experiment Viewed", TODAY, visitor, flag_key="checkout", variation_key="a")
    found = await count_decisions(settings(pendo), "Experiment Viewed", THESE_DAYS)
    assert found == {("checkout", "a"): AtPendo(3, 2)}


async def test_decisions_are_counted_by_flag_and_variation_as_sent(pendo: PendoStandIn) -> None:
    for variation in ("a", "a", "b", "off"):
        await send(pendo, "Experiment Viewed", TODAY, flag_key="checkout", variation_key=variation)
    await send(pendo, "Experiment Viewed", TODAY, flag_key="search")
    await send(pendo, "Experiment Viewed", TODAY, other=1)
    await send(pendo, "Clicked", TODAY, flag_key="checkout", variation_key="a")
    assert await count(pendo) == {
        ("checkout", "a"): 2,
        ("checkout", "b"): 1,
        ("checkout", "off"): 1,
        ("search", None): 1,
    }


async def test_only_the_days_asked_for_are_counted(pendo: PendoStandIn) -> None:
    for days_ago in (0, 1, 2, 3):
        await send(
            pendo, "Experiment Viewed", TODAY - days_ago * DAY_MS, flag_key=f"f{days_ago}", variation_key="a"
        )
    assert await count(pendo, Days(TODAY - 2 * DAY_MS, 2)) == {("f1", "a"): 1, ("f2", "a"): 1}


async def test_an_event_that_pendo_has_never_seen_has_no_counts(pendo: PendoStandIn) -> None:
    assert await count(pendo) == {}


@pytest.mark.parametrize(
    "rows",
    [
        [{"properties": {"flag_key": "f", "variation_key": "a"}, "counted": 3}],
        [{"properties.flag_key": "f", "properties.variation_key": "a", "counted": 3.0}],
        [{"flag_key": "f", "variation_key": "a", "counted": n} for n in (1, 2)],
        [{"flag_key": "f", "variation_key": "a", "counted": 3}, "noise", {"flag_key": None, "counted": 9}, {}],
    ],
)  # fmt: skip
async def test_rows_are_read_in_each_known_form(
    pendo: PendoStandIn, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    types = Fault(body=orjson.dumps([{"id": "t1", "trackTypeName": "Experiment Viewed"}, {"id": 7}, "noise"]))
    pendo.faults.next(Endpoint.AGGREGATION, types, Fault(body=orjson.dumps({"results": rows})))
    # The stand-in refuses a pipeline with an id that it does not know; the scripted rows need no real one.
    monkeypatch.setattr(pendo_counts, "_pipeline", lambda *_: [{"source": {"trackTypes": None}}])
    assert await count(pendo) == {("f", "a"): 3}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "Pendo refuses pendo.integration_key"),
        (404, r"of another region: set pendo.region \(us now\)"),
        (302, "of another region"),
        (504, "choose a shorter one with --since"),
        (400, "report this"),
        (503, "status.pendo.io"),
        (Fault(body=b"<html>"), "not from Pendo"),
        (Fault(body=b'{"results":7}'), "not from Pendo"),
        (CLOSE_BEFORE_RECORDING, "check pendo.region, pendo.api_url"),
        (NOT_HTTP, "check pendo.region, pendo.api_url"),
    ],
)
async def test_missing_counts_are_an_error_that_says_what_to_do(
    pendo: PendoStandIn, fault: Fault | int, said: str
) -> None:
    pendo.faults.outage(fault, Endpoint.AGGREGATION)
    with pytest.raises(PendoNotCounting, match=said) as raised:
        await count(pendo)
    assert pendo.keys.integration_key not in str(raised.value)


async def test_a_wrong_key_is_refused(pendo: PendoStandIn) -> None:
    with pytest.raises(PendoNotCounting, match=r"status 403; Pendo refuses pendo.integration_key"):
        await count(pendo, key="wrong")


async def test_the_wait_for_an_answer_has_a_limit(
    pendo: PendoStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pendo_counts, "TIMEOUT_SECONDS", 0.05)
    pendo.faults.outage(HANG, Endpoint.AGGREGATION)
    with pytest.raises(PendoNotCounting, match=r"no answer within 0\.05 s; choose a shorter window"):
        await count(pendo)


async def test_without_a_key_no_request_is_sent(pendo: PendoStandIn) -> None:
    with pytest.raises(PendoNotCounting, match=r"set pendo.integration_key"):
        await count_decisions(PendoSettings(api_url=pendo.api_url), "Experiment Viewed", THESE_DAYS)
    assert len(pendo.received) == 0


def test_every_day_that_the_window_touches_counts() -> None:
    assert days_of(TODAY, TODAY + DAY_MS) == Days(TODAY, 1)
    assert days_of(TODAY + 1, TODAY + DAY_MS + 1) == Days(TODAY, 2)
    assert days_of(TODAY, TODAY) == Days(TODAY, 1)


def test_deliveries_that_pendo_may_have_twice_widen_the_expected_range() -> None:
    counts = Counts(delivered=10, unseen=2, sent_again=1)
    differences = {counted: compare(counts, AtPendo(counted)).difference for counted in (8, 10, 13, 15)}
    assert differences == {8: -2, 10: 0, 13: 0, 15: 2}


# The stand-in's endpoint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"{}", "request.pipeline"),
        (b'{"response":{"mimeType":"text/csv"},"request":{"pipeline":[]}}', "mimeType"),
        (
            b'{"response":{"mimeType":"application/json"},"request":{"pipeline":[]}}',
            "does not know this pipeline",
        ),
        (
            orjson.dumps(
                {
                    "response": {"mimeType": "application/json"},
                    "request": {
                        "pipeline": [
                            {
                                "source": {
                                    "trackEvents": {"trackTypeId": "t"},
                                    "timeSeries": {"period": "dayRange", "first": 0, "count": 1},
                                }
                            },
                            {"group": {"group": ["visitorId"], "fields": {"n": {"sum": "numEvents"}}}},
                        ]
                    },
                }
            ),
            "does not know this pipeline",
        ),
    ],
)
async def test_the_stand_in_refuses_requests_that_it_does_not_understand(
    pendo: PendoStandIn, body: bytes, said: str
) -> None:
    headers = {"x-pendo-integration-key": pendo.keys.integration_key}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{pendo.url}/api/v1/aggregation", data=body, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert said in (await answer.json())["error"]
