"""Checks of Pendo: is it reachable, are the keys valid, does it accept the names in the settings.

In: settings. Out: checks (those of metadata fields are in `fields`). Nothing is sent that Pendo would count unless a
test event is requested (`secret`): Pendo has an endpoint that verifies the integration key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from flagpost_consumer.adapters.http.answers import Reply
from flagpost_consumer.adapters.http.client import NOT_SENT, HttpClient, NoReply, why_not_sent
from flagpost_consumer.adapters.pendo.http import PROXY_REFUSES
from flagpost_consumer.commands.check.fields import check_fields
from flagpost_consumer.commands.check.results import Check, fail, ok, warn
from flagpost_consumer.commands.check.secret import check_track_secret
from flagpost_consumer.commands.sources.newest_events import Sample
from flagpost_consumer.commands.sources.pendo_api import pendo_api
from flagpost_consumer.core.planning.legible import legible, quoted
from flagpost_consumer.core.planning.pendo_rules import Rule, trim
from flagpost_consumer.settings import PendoSettings, Settings

TIMEOUT_SECONDS = 10.0
MAX_WHY_CHARACTERS = 200

TRACK = "pendo track endpoint"
KEY = "pendo integration key"
PROPERTIES = "property names"

NEW_KEY = "create a key with write access in Pendo (Settings > Integrations > Integration keys)"


async def check_pendo(
    settings: Settings, sample: Awaitable[Sample], test_visitor: str | None = None
) -> list[Check]:
    """Check both endpoints, their keys and the metadata fields.

    `sample`: the newest events, whose fields are compared; `test_visitor`: send an event of this visitor.
    """
    track, secret, api = await asyncio.gather(
        _track_endpoint(settings.pendo), check_track_secret(settings, test_visitor), _api(settings, sample)
    )
    return [
        track,
        *secret,
        *_property_names(settings.decisions.attribute_properties),
        *api,
    ]


async def _track_endpoint(pendo: PendoSettings) -> Check:
    """Connect, with TLS and through the proxy, and send nothing."""
    url = pendo.urls.track
    try:
        async with HttpClient(pendo.outbound) as http, asyncio.timeout(TIMEOUT_SECONDS):
            connected = await http.connect(http.target("POST", url), lambda _: None)
            connected.give_up()
    except TimeoutError:
        return _no_track_endpoint(url, f"no connection within {TIMEOUT_SECONDS:g} s")
    except NOT_SENT as error:
        return _no_track_endpoint(url, why_not_sent(error))
    return ok(TRACK, f"{url} accepts connections")


def _no_track_endpoint(url: str, why: str) -> Check:
    fix = "check pendo.region, pendo.track_url, pendo.proxy, pendo.ca_file and the firewall"
    return fail(TRACK, f"{url}: {legible(why, MAX_WHY_CHARACTERS)}", fix)


def _property_names(names: list[str]) -> list[Check]:
    """Whether Pendo accepts the names that `decisions.attribute_properties` adds to decisions."""
    if not names:
        return []
    repairs = [r for r in trim(dict.fromkeys(names, 0))[1] if r.rule is not Rule.SIZE]
    if not repairs:
        return [ok(PROPERTIES, "Pendo accepts every name in decisions.attribute_properties")]
    told = "; ".join(f"{quoted(r.field)} ({r.rule.value}) {r.detail}" for r in repairs)
    fix = "rename the attributes in the service and in decisions.attribute_properties, or accept the repair"
    return [warn(PROPERTIES, f"names that break Pendo's rules: {told}", fix)]


async def _api(settings: Settings, sample: Awaitable[Sample]) -> list[Check]:
    async with pendo_api(settings.pendo) as api:
        if api is None:
            return [ok(KEY, "none is set, and decisions.visitor_metadata is false: no metadata is sent")]
        verified, fields = await asyncio.gather(
            _key(api.get, settings.pendo), check_fields(api.get_json, settings, sample)
        )
    return [verified, fields]


async def _key(get: Callable[[str], Awaitable[Reply]], pendo: PendoSettings) -> Check:
    path = "/api/v1/token/verify"
    try:
        reply = await get(path)
    except NoReply as error:
        why = f"{pendo.urls.api}{path}: {legible(str(error), MAX_WHY_CHARACTERS)}"
        fix = "check pendo.region, pendo.api_url, pendo.proxy, pendo.ca_file and the firewall"
        return fail(KEY, why, fix)
    status, body = reply.status, reply.body
    if status == 200:
        return _verified(_json(body))
    if status in (401, 403):
        fix = f"{NEW_KEY}, in the region {pendo.region.value}, and set pendo.integration_key"
        return fail(KEY, f"Pendo refuses it ({status})", fix)
    if status == 404 or 300 <= status < 400:
        return fail(
            KEY,
            f"{pendo.urls.api} does not have this endpoint ({status}): pendo.region is {pendo.region.value}",
            "set pendo.region to your subscription's region, or set pendo.api_url",
        )
    if status == PROXY_REFUSES:
        return fail(
            KEY,
            f"the proxy refuses the request ({status})",
            "set pendo.proxy, with its user name and password",
        )
    return fail(KEY, f"Pendo answers {status}", "check again later; https://status.pendo.io reports outages")


def _verified(answer: Any) -> Check:  # noqa: ANN401 (any JSON)
    if not isinstance(answer, dict) or "valid" not in answer:
        return fail(KEY, "the answer is not from Pendo", "check pendo.api_url, and proxies in between")
    if answer["valid"] is not True:
        return fail(KEY, "Pendo says that the key is not valid", f"{NEW_KEY} and set pendo.integration_key")
    if answer.get("writeAccess") is False:
        return fail(KEY, "the key is read-only, so metadata cannot be written", NEW_KEY)
    return ok(KEY, "Pendo accepts it, with write access")


def _json(body: bytes) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
