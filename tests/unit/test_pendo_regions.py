"""The five regions, and how `flagpost check` distinguishes a wrong region, a wrong key and a read-only key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from flagpost_consumer.commands.check.pendo import KEY, PROPERTIES, check_pendo
from flagpost_consumer.commands.check.results import Check, Status
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Keys, PendoStandIn
from flagpost_consumer.settings import Settings
from newest_sample import sample_read

REGIONS = {
    "us": ("https://app.pendo.io", "https://data.pendo.io/data/track"),
    "us1": ("https://us1.app.pendo.io", "https://us1.data.pendo.io/data/track"),
    "eu": ("https://app.eu.pendo.io", "https://data.eu.pendo.io/data/track"),
    "jp": ("https://app.jpn.pendo.io", "https://data.jpn.pendo.io/data/track"),
    "au": ("https://app.au.pendo.io", "https://data.au.pendo.io/data/track"),
}
EVENTS = {
    "visitor": {"type": "visitor", "visitor_id": "v", "values": {"plan": "pro"}},
    "account": {"type": "account", "account_id": "a", "values": {"plan": "pro"}},
}


def urls(event: dict[str, Any], env: dict[str, str]) -> list[str]:
    shown = CliRunner().invoke(flagpost, ["preview", "--json"], input=json.dumps(event), env=env)
    assert shown.exit_code == 0, shown.output
    return [request["url"] for request in json.loads(shown.stdout)["requests"]]


@pytest.mark.parametrize("region", REGIONS)
def test_each_kind_of_request_goes_to_its_regions_hosts(region: str) -> None:
    api, track = REGIONS[region]
    env = {"FLAGPOST_PENDO__REGION": region, "FLAGPOST_PENDO__INTEGRATION_KEY": "key"}
    assert urls({"type": "track", "visitor_id": "v", "event": "Clicked"}, env) == [track]
    for target, event in EVENTS.items():
        for group in ("custom", "agent"):
            path = f"/api/v1/metadata/{target}/{group}/value?create=true"
            assert urls({**event, "group": group}, env) == [api + path]


def test_older_hosts_can_be_set_outright() -> None:
    env = {"FLAGPOST_PENDO__REGION": "eu", "FLAGPOST_PENDO__TRACK_URL": "https://app.pendo.io/data/track"}
    event = {"type": "track", "visitor_id": "v", "event": "Clicked"}
    assert urls(event, env) == ["https://app.pendo.io/data/track"]


async def key_check(pendo: PendoStandIn, **own: object) -> Check:
    given = {
        "track_url": pendo.track_url,
        "api_url": pendo.api_url,
        "track_secret": Keys().track_secret,
        "integration_key": Keys().integration_key,
        **own,
    }
    checks = await check_pendo(Settings.model_validate({"pendo": given}), sample_read())
    return next(check for check in checks if check.name == KEY)


async def test_the_four_findings_on_a_key_are_distinguished() -> None:
    async with PendoStandIn() as pendo:
        # A host of another region that does not have this endpoint answers 404.
        elsewhere = await key_check(pendo, api_url=f"{pendo.api_url}/elsewhere", region="jp")
        refused = await key_check(pendo, integration_key="another")
        good = await key_check(pendo)
        pendo.keys = replace(pendo.keys, may_write=False)
        read_only = await key_check(pendo)
        assert pendo.received.outcomes[Endpoint.TOKEN, "200"] == 2
    assert [check.status for check in (elsewhere, refused, read_only)] == [Status.FAIL] * 3
    assert "(404): pendo.region is jp" in elsewhere.detail
    assert "set pendo.region" in elsewhere.fix
    assert "refuses it (403)" in refused.detail
    assert "in the region us" in refused.fix
    assert "read-only" in read_only.detail
    assert "write access" in read_only.fix
    assert good.status is Status.OK


@pytest.mark.parametrize(
    ("names", "status", "words"),
    [
        (["plan"], Status.OK, "accepts every name"),
        (
            ["plan", "error"],
            Status.WARN,
            '"error" (name_reserved) renamed to error_: Pendo keeps the name error',
        ),
        (["user plan"], Status.WARN, '"user plan" (name_characters) renamed to user_plan'),
    ],
)
async def test_names_of_attributes_that_pendo_does_not_accept_are_reported(
    names: list[str], status: Status, words: str
) -> None:
    async with PendoStandIn() as pendo:
        given = {"track_url": pendo.track_url, "api_url": pendo.api_url, "track_secret": "s"}
        checks = await check_pendo(
            Settings.model_validate({"pendo": given, "decisions": {"attribute_properties": names}}),
            sample_read(),
        )
    check = next(check for check in checks if check.name == PROPERTIES)
    assert check.status is status
    assert words in check.detail
    assert bool(check.fix) is (status is Status.WARN)
