"""Checks of Pendo: is it reachable, are the keys good, are the metadata fields there.

In: settings. Out: checks. Nothing is sent that Pendo would count: the integration key is verified by Pendo's own
endpoint for it; for the track secret there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from flagpost_consumer.adapters.pendo_fields import parse_schema
from flagpost_consumer.adapters.pendo_http import INTEGRATION_KEY_HEADER, read_answer
from flagpost_consumer.core.legible import legible
from flagpost_consumer.core.policy import DecisionsSettings
from flagpost_consumer.operator.check_results import Check, fail, ok, warn
from flagpost_consumer.settings import PendoSettings, Settings

TIMEOUT_SECONDS = 10.0
MAX_WHY_CHARACTERS = 200
GLOB_CHARACTERS = "*?["

TRACK = "pendo track endpoint"
TRACK_SECRET = "pendo track secret"  # noqa: S105 (a check's name)
KEY = "pendo integration key"
FIELDS = "metadata fields"

NEW_KEY = "make a key with write access in Pendo (Settings > Integrations > Integration keys)"


async def check_pendo(settings: Settings) -> list[Check]:
    """Check both endpoints, their keys and the metadata fields."""
    track, api = await asyncio.gather(_track_endpoint(settings.pendo), _api(settings))
    return [track, _track_secret(settings.pendo), *api]


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


async def _api(settings: Settings) -> list[Check]:
    key = settings.pendo.integration_key_source
    if key is None:
        return [ok(KEY, "none is set, and decisions.visitor_metadata is false: no metadata is sent")]
    async with aiohttp.ClientSession(
        headers={INTEGRATION_KEY_HEADER: key.current()},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    ) as session:
        verified, fields = await asyncio.gather(_key(session, settings.pendo), _fields(session, settings))
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
        return fail(KEY, f"Pendo refuses it ({status})", f"{NEW_KEY} and set pendo.integration_key")
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


async def _fields(session: aiohttp.ClientSession, settings: Settings) -> Check:
    wanted = dict(wanted_fields(settings))
    if not wanted:
        return ok(
            FIELDS,
            "nothing to compare: no flag is named in decisions.flags_allow, decisions.metadata_fields "
            "or metrics.flags",
        )
    answer = await _get(session, f"{settings.pendo.urls.api}/api/v1/metadata/schema/visitor")
    known = parse_schema(answer[1]).get("custom") if isinstance(answer, tuple) and answer[0] == 200 else None
    if known is None:
        return warn(
            FIELDS,
            "Pendo's visitor metadata schema cannot be read; values are sent under the configured names",
            "mend the integration key first, then check again",
        )
    missing = {flag: field for flag, field in wanted.items() if field not in known}
    if not missing:
        return ok(FIELDS, f"Pendo has the fields of all {len(wanted)} flags named in the settings")
    return warn(
        FIELDS,
        "Pendo has no custom visitor field for " + ", ".join(f"flag {flag}" for flag in missing),
        "create in Pendo (Settings > Data Mappings > Visitors), custom, of type text: "
        + ", ".join(f'"{field}"' for field in missing.values()),
    )


def wanted_fields(settings: Settings) -> Iterator[tuple[str, str]]:
    """Flags that the settings name and whose decisions are sent, each with its field."""
    decisions = settings.decisions
    named = [*(decisions.flags_allow or ()), *decisions.metadata_fields, *settings.metrics.flags]
    for flag in dict.fromkeys(named):
        if decisions.visitor_metadata and not set(flag) & set(GLOB_CHARACTERS) and _is_sent(flag, decisions):
            template = decisions.metadata_field.replace("{flag_key}", flag)
            yield flag, decisions.metadata_fields.get(flag, template)


def _is_sent(flag: str, decisions: DecisionsSettings) -> bool:
    allowed = decisions.flags_allow is None or _matches(flag, decisions.flags_allow)
    return allowed and not _matches(flag, decisions.flags_deny or [])


def _matches(flag: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(flag, pattern) for pattern in patterns)


def _json(body: bytes) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
