"""The checks of Pendo, against the stand-in and against servers that are not Pendo."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from flagpost_consumer.commands.check.fields import FIELDS, named_flags
from flagpost_consumer.commands.check.pendo import KEY, TRACK, check_pendo
from flagpost_consumer.commands.check.results import Check, Status
from flagpost_consumer.commands.check.secret import TRACK_SECRET
from flagpost_consumer.commands.sources import pendo_api
from flagpost_consumer.demo.pendo_stand_in import (
    HANG,
    NOT_HTTP,
    Endpoint,
    Fault,
    Keys,
    MetadataField,
    PendoStandIn,
    StandInConfig,
)
from flagpost_consumer.settings import Settings
from newest_sample import sample_read

KEYS = Keys()
CHECKOUT = MetadataField("optimizely_checkout", "[Optimizely] checkout")


def _settings(stand_in: PendoStandIn, **sections: dict[str, Any]) -> Settings:
    own = {
        "track_url": stand_in.track_url,
        "api_url": f"{stand_in.api_url}/",
        "track_secret": KEYS.track_secret,
        "integration_key": KEYS.integration_key,
        **sections.pop("pendo", {}),
    }
    # Port 0: the address of a running consumer is unknown, so none is asked.
    return Settings.model_validate({"pendo": own, "admin": {"port": 0}, **sections})


async def _checks(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in await check_pendo(settings, sample_read())}


async def _key_check(fault: Fault | int) -> Check:
    async with PendoStandIn() as pendo:
        pendo.faults.next(Endpoint.TOKEN, fault)
        return (await _checks(_settings(pendo)))[KEY]


async def _fields_check(*fields: MetadataField, **sections: dict[str, Any]) -> Check:
    async with PendoStandIn(StandInConfig(fields=fields)) as pendo:
        return (await _checks(_settings(pendo, **sections)))[FIELDS]


async def test_all_is_well_and_no_event_is_sent() -> None:
    async with PendoStandIn() as pendo:
        checks = await _checks(_settings(pendo))
        secret = checks.pop(TRACK_SECRET)
        assert {check.status for check in checks.values()} == {Status.OK}
        assert (secret.status, "not tested" in secret.detail) == (Status.WARN, True)
        assert "--send-test-event" in secret.fix
        assert pendo.received.of(Endpoint.TRACK) == []


async def test_a_wrong_key_is_distinguished_from_a_wrong_region() -> None:
    async with PendoStandIn() as pendo:
        check = (await _checks(_settings(pendo, pendo={"integration_key": "wrong"})))[KEY]
    assert check.status is Status.FAIL
    assert "refuses it (403)" in check.detail
    assert "pendo.integration_key" in check.fix


@pytest.mark.parametrize("status", [404, 302])
async def test_a_wrong_region(status: int) -> None:
    check = await _key_check(status)
    assert check.status is Status.FAIL
    assert "pendo.region is us" in check.detail
    assert "pendo.region" in check.fix


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (401, "refuses it (401)"),
        (503, "answers 503"),
        (429, "answers 429"),
        (Fault(status=200, body=b'{"valid":true,"writeAccess":false}'), "read-only"),
        (Fault(status=200, body=b'{"valid":false}'), "not valid"),
        (Fault(status=200, body=b"<html>proxy</html>"), "not from Pendo"),
        (Fault(status=200, body=b"[]"), "not from Pendo"),
        (NOT_HTTP, "/api/v1/token/verify"),
    ],
)
async def test_answers_that_say_the_key_is_not_good(answer: Fault | int, says: str) -> None:
    check = await _key_check(answer)
    assert check.status is Status.FAIL
    assert says in check.detail
    assert check.fix


async def test_a_key_that_may_write_is_good() -> None:
    assert (
        await _key_check(Fault(status=200, body=b'{"valid":true,"writeAccess":true}'))
    ).status is Status.OK


async def test_a_missing_answer_is_reported_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pendo_api, "TIMEOUT_SECONDS", 0.2)
    check = await _key_check(HANG)
    assert check.status is Status.FAIL
    assert "no answer within 0.2 s" in check.detail


async def test_an_address_at_which_nothing_listens_is_reported() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        own = {"track_url": url, "api_url": url, "track_secret": "a", "integration_key": "b"}
        checks = await _checks(Settings.model_validate({"pendo": own}))
    assert [checks[name].status for name in (TRACK, KEY)] == [Status.FAIL, Status.FAIL]
    assert url in checks[TRACK].detail
    assert checks[FIELDS].status is Status.OK


async def test_the_integration_key_is_not_a_track_secret() -> None:
    async with PendoStandIn() as pendo:
        checks = await _checks(_settings(pendo, pendo={"track_secret": KEYS.integration_key}))
    assert checks[TRACK_SECRET].status is Status.WARN
    assert KEYS.integration_key not in checks[TRACK_SECRET].detail


async def test_without_a_key_nothing_of_the_api_is_checked() -> None:
    async with PendoStandIn() as pendo:
        settings = _settings(pendo, pendo={"integration_key": None}, decisions={"visitor_metadata": False})
        checks = await _checks(settings)
        assert pendo.received.of(Endpoint.TOKEN) == []
    assert set(checks) == {TRACK, TRACK_SECRET, KEY}
    assert checks[KEY].status is Status.OK


@pytest.mark.parametrize(
    "decisions",
    [
        {"flags_allow": ["checkout"]},
        {"metadata_fields": {"checkout": "optimizely_checkout"}},
        {"metadata_fields": {"checkout": "[Optimizely] checkout"}},
    ],
)
async def test_a_field_is_found_by_either_of_its_names(decisions: dict[str, Any]) -> None:
    assert (await _fields_check(CHECKOUT, decisions=decisions)).status is Status.OK


async def test_a_missing_field_is_a_warning_that_says_what_to_create() -> None:
    check = await _fields_check(CHECKOUT, metrics={"flags": ["checkout", "banner"]})
    assert check.status is Status.WARN
    assert '"[Optimizely] banner"' in check.fix
    assert "checkout" not in check.detail + check.fix


async def test_a_schema_that_cannot_be_read_is_a_warning() -> None:
    async with PendoStandIn() as pendo:
        pendo.faults.next(Endpoint.SCHEMA, 500)
        check = (await _checks(_settings(pendo, metrics={"flags": ["banner"]})))[FIELDS]
    assert check.status is Status.WARN
    assert "cannot be read" in check.detail


@pytest.mark.parametrize(
    ("sections", "flags"),
    [
        ({}, []),
        ({"decisions": {"flags_allow": ["a", "b*", "c?", "d[e]"]}}, ["a"]),
        ({"decisions": {"flags_allow": ["a"]}, "metrics": {"flags": ["a", "z"]}}, ["a"]),
        ({"decisions": {"flags_deny": ["z*"]}, "metrics": {"flags": ["a", "zz"]}}, ["a"]),
        ({"decisions": {"visitor_metadata": False}, "metrics": {"flags": ["a"]}}, []),
    ],
)
def test_a_flag_needs_a_field_if_it_is_named_and_sent(sections: dict[str, Any], flags: list[str]) -> None:
    assert [flag for flag, _ in named_flags(Settings.model_validate(sections))] == flags
