"""Checks of Pendo: is it reachable, are the keys good, does it take the names that the settings give.

In: settings. Out: checks (those of metadata fields are in `field_checks`). Nothing is sent that Pendo would count:
the integration key is verified by Pendo's own endpoint for it; for the track secret there is none.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from flagpost_consumer.adapters.pendo_http import INTEGRATION_KEY_HEADER, read_answer
from flagpost_consumer.core.legible import legible, quoted
from flagpost_consumer.core.pendo_rules import Rule, trim
from flagpost_consumer.operator.check_results import Check, fail, ok, warn
from flagpost_consumer.operator.field_checks import check_fields
from flagpost_consumer.settings import PendoSettings, Settings

TIMEOUT_SECONDS = 10.0
MAX_WHY_CHARACTERS = 200

TRACK = "pendo track endpoint"
TRACK_SECRET = "pendo track secret"  # noqa: S105 (a check's name)
KEY = "pendo integration key"
PROPERTIES = "property names"

NEW_KEY = "make a key with write access in Pendo (Settings > Integrations > Integration keys)"


async def check_pendo(settings: Settings) -> list[Check]:
    """Check both endpoints, their keys and the metadata fields."""
    track, api = await asyncio.gather(_track_endpoint(settings.pendo), _api(settings))
    return [
        track,
        _track_secret(settings.pendo),
        *_property_names(settings.decisions.attribute_properties),
        *api,
    ]


async def _track_endpoint(pendo: PendoSettings) -> Check:
    """Connect, with TLS, and send nothing."""
    url = urlsplit(pendo.urls.track)
    secure = url.scheme == "https"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(
                url.hostname, url.port or (443 if secure else 80), ssl=secure
            )
    except OSError as error:  # a TimeoutError is one, and so are TLS errors
        why = str(error) or f"no connection within {TIMEOUT_SECONDS:g} s"
        return fail(
            TRACK, f"{pendo.urls.track}: {why}", "see pendo.region and pendo.track_url, and the firewall"
        )
    writer.close()
    return ok(TRACK, f"{pendo.urls.track} takes connections")


def _track_secret(pendo: PendoSettings) -> Check:
    track, key = pendo.track_secret_source, pendo.integration_key_source
    if track is not None and key is not None and track.current() == key.current():
        return warn(
            TRACK_SECRET,
            "it is the integration key; Pendo's shared secret for track events is another value",
            "copy the Track Event shared secret from your application's settings in Pendo",
        )
    return ok(TRACK_SECRET, "it is set; whether Pendo accepts it shows only when an event is sent")


def _property_names(names: list[str]) -> list[Check]:
    """Whether Pendo takes the names that `decisions.attribute_properties` adds to decisions."""
    if not names:
        return []
    repairs = [r for r in trim(dict.fromkeys(names, 0))[1] if r.rule is not Rule.SIZE]
    if not repairs:
        return [ok(PROPERTIES, "Pendo takes every name in decisions.attribute_properties")]
    told = "; ".join(f"{quoted(r.field)} ({r.rule.value}) {r.detail}" for r in repairs)
    fix = "rename the attributes in the service and in decisions.attribute_properties, or leave it at the repair"
    return [warn(PROPERTIES, f"names that break Pendo's rules: {told}", fix)]


async def _api(settings: Settings) -> list[Check]:
    key = settings.pendo.integration_key_source
    if key is None:
        return [ok(KEY, "none is set, and decisions.visitor_metadata is false: no metadata is sent")]
    async with aiohttp.ClientSession(
        headers={INTEGRATION_KEY_HEADER: key.current()},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    ) as session:

        async def get_json(path: str) -> bytes | None:
            answer = await _get(session, settings.pendo.urls.api + path)
            return answer[1] if isinstance(answer, tuple) and answer[0] == 200 else None

        verified, fields = await asyncio.gather(
            _key(session, settings.pendo), check_fields(get_json, settings)
        )
    return [verified, fields]


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, bytes] | str:
    """The answer, or why there is none."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            return response.status, await read_answer(response)
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: as in pendo_http
        why = legible(str(error), MAX_WHY_CHARACTERS)
        return f"{url}: {why or f'no answer within {TIMEOUT_SECONDS:g} s'}"


async def _key(session: aiohttp.ClientSession, pendo: PendoSettings) -> Check:
    answer = await _get(session, f"{pendo.urls.api}/api/v1/token/verify")
    if isinstance(answer, str):
        return fail(KEY, answer, "see pendo.region and pendo.api_url, and the firewall")
    status, body = answer
    if status == 200:
        return _verified(_json(body))
    if status in (401, 403):
        fix = f"{NEW_KEY}, of the region {pendo.region.value}, and set pendo.integration_key"
        return fail(KEY, f"Pendo refuses it ({status})", fix)
    if status == 404 or 300 <= status < 400:
        return fail(
            KEY,
            f"{pendo.urls.api} does not know the endpoint ({status}): pendo.region is {pendo.region.value}",
            "set pendo.region to where your subscription lives, or pendo.api_url",
        )
    return fail(KEY, f"Pendo answers {status}", "check again later; https://status.pendo.io tells of outages")


def _verified(answer: Any) -> Check:  # noqa: ANN401 (any JSON)
    if not isinstance(answer, dict) or "valid" not in answer:
        return fail(KEY, "the answer is none of Pendo's", "see pendo.api_url, and proxies on the way")
    if answer["valid"] is not True:
        return fail(KEY, "Pendo says that it is not valid", f"{NEW_KEY} and set pendo.integration_key")
    if answer.get("writeAccess") is False:
        return fail(KEY, "it may only read, so no metadata can be written", NEW_KEY)
    return ok(KEY, "Pendo accepts it, with write access")


def _json(body: bytes) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
