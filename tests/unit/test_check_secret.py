"""The check of the track secret: with a test event, and with the status of a running consumer."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from certificates import Authority
from flagpost_consumer.commands.check import secret as secret_check
from flagpost_consumer.commands.check.results import Check, Status
from flagpost_consumer.commands.check.secret import TRACK_SECRET, check_track_secret, send_test_event
from flagpost_consumer.demo.pendo_stand_in import HANG, NOT_HTTP, Endpoint, Fault, Keys, PendoStandIn
from flagpost_consumer.settings import Settings
from http_proxy import http_proxy
from pendo_client import answering_server

KEYS = Keys()
PENDO = "data.pendo.example"


def settings_of(pendo: Mapping[str, Any], **more: Any) -> Settings:
    own = {"track_secret": KEYS.track_secret, "integration_key": KEYS.integration_key, **pendo}
    return Settings.model_validate({"pendo": own, **more})


async def sent(stand_in: PendoStandIn, **pendo: Any) -> Check:
    return await send_test_event(settings_of({"track_url": stand_in.track_url, **pendo}), "tester")


async def test_one_event_is_sent_that_keeps_pendos_rules() -> None:
    async with PendoStandIn() as pendo:
        check = await sent(pendo)
        assert (check.status, check.fix) == (Status.OK, "")
        assert "Pendo answers 200" in check.detail
        (received,) = pendo.received.of(Endpoint.TRACK)
        assert pendo.received.violations == []
        body = orjson.loads(received.body)
        assert (body["event"], body["visitorId"]) == ("Flagpost check", "tester")


@pytest.mark.parametrize(
    ("answer", "detail", "fix"),
    [
        (401, "answers 401", "pendo.track_secret"),
        (404, "answers 404", "pendo.track_url"),
        (302, "answers 302", "pendo.track_url"),
        (429, "answers 429", "pendo.track_requests_per_minute"),
        (503, "answers 503", "status.pendo.io"),
        (Fault(status=400, body=b"no such\x1b[2J member"), "answers 400: no such [2J member", "preview"),
        (NOT_HTTP, "no answer", "pendo.track_url"),
        (HANG, "may have accepted it", "pendo.track_url"),
    ],
)
async def test_any_other_answer_of_pendo_is_reported_with_what_to_do(
    answer: Fault | int, detail: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_check, "TIMEOUT_SECONDS", 1.0)
    async with PendoStandIn() as pendo:
        pendo.faults.next(Endpoint.TRACK, answer)
        check = await sent(pendo)
        assert check.status is Status.FAIL
        assert detail in check.detail
        assert fix in check.fix
        assert len(pendo.received.of(Endpoint.TRACK)) == 1, "one event, whatever comes of it"


async def test_a_wrong_secret_is_found_and_an_answer_that_echoes_it_is_not_shown() -> None:
    async with PendoStandIn() as pendo:
        assert (await sent(pendo, track_secret="wrong")).status is Status.FAIL
        pendo.faults.next(Endpoint.TRACK, Fault(status=403, body=f"not {KEYS.track_secret}!".encode()))
        check = await sent(pendo)
    assert "not ***!" in check.detail
    assert KEYS.track_secret not in check.detail


async def test_the_event_goes_through_the_proxy_and_trusts_the_file_of_certificates(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    async with (
        answering_server(authority.server_context(PENDO), b"") as (port, _),
        http_proxy({PENDO: port}, "user:pass") as proxy,
    ):
        url = f"https://{PENDO}/data/track"
        through = {"track_url": url, "proxy": f"http://user:pass@127.0.0.1:{proxy.port}"}
        trusting = await send_test_event(settings_of({**through, "ca_file": str(authority.file)}), "tester")
        assert trusting.status is Status.OK
        strange = await send_test_event(settings_of(through), "tester")
        assert (strange.status, "certificate" in strange.detail) == (Status.FAIL, True)
        refused = {**through, "proxy": f"http://user:other@127.0.0.1:{proxy.port}"}
        check = await send_test_event(settings_of({**refused, "ca_file": str(authority.file)}), "tester")
        assert (check.status, "407" in check.detail) == (Status.FAIL, True)
        assert "user:other" not in check.detail + check.fix


# The status of a running consumer


def status_of(track: Mapping[str, object], group: str = "flagpost") -> bytes:
    well = {"state": "ok", "in_flight": 0, "successes": 3}
    return orjson.dumps({"group": group, "endpoints": {"track": {**well, **track}, "metadata": well}})


async def asked(body: bytes) -> dict[str, Check]:
    """Run the checks while a server at the admin address answers with this body."""
    async with answering_server(None, body) as (port, _):
        settings = settings_of({}, admin={"host": "127.0.0.1", "port": port})
        return {check.name: check for check in await check_track_secret(settings, None)}


async def test_a_consumer_that_delivers_says_that_its_secret_works() -> None:
    checks = await asked(status_of({"successes": 1234}))
    assert {check.status for check in checks.values()} == {Status.OK}
    assert "not tested here; Pendo has accepted 1,234 events" in checks[TRACK_SECRET].detail
    assert set(checks) == {TRACK_SECRET, "consumer, pendo track", "consumer, pendo metadata"}


@pytest.mark.parametrize(
    ("state", "status"),
    [("unauthorized", Status.FAIL), ("unreachable", Status.FAIL), ("throttled", Status.WARN)],
)
async def test_a_consumer_whose_requests_fail_says_why(state: str, status: Status) -> None:
    checks = await asked(status_of({"state": state, "status": "403", "to_do": "set it right"}))
    told = checks["consumer, pendo track"]
    assert (told.status, told.fix) == (status, "set it right")
    assert f"{state}, Pendo answers 403" in told.detail
    assert checks[TRACK_SECRET].status is Status.WARN
    assert checks["consumer, pendo metadata"].status is Status.OK


async def test_before_the_first_event_the_secret_is_untested() -> None:
    checks = await asked(status_of({"successes": 0}))
    assert checks[TRACK_SECRET].status is Status.WARN


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html>", b'{"group": "flagpost"}', status_of({}, "another"), status_of({"state": 1})],
)
async def test_an_answer_that_is_not_from_a_consumer_of_the_group_is_ignored(body: bytes) -> None:
    checks = await asked(body)
    assert set(checks) == {TRACK_SECRET}
    assert checks[TRACK_SECRET].status is Status.WARN


async def test_nobody_at_the_admin_address_is_not_an_error() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        settings = settings_of({}, admin={"port": unheard.getsockname()[1]})
        (check,) = await check_track_secret(settings, None)
    assert (check.name, check.status) == (TRACK_SECRET, Status.WARN)
