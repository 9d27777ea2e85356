"""How many decisions Pendo counts, by flag and variation, according to its aggregation API.

In: settings, the event's name, a window. Out: a count for each flag and variation, or `PendoNotCounting` with the
reason in a line. Pendo aggregates whole days (`dayRange`) of the events' own times, so a window that begins or ends
within a day is compared with more than it contains.

Two requests to `POST {api_url}/api/v1/aggregation` (Pendo's API documentation, "Aggregation"): the first finds the id
of the track event's name (source `trackTypes`), the second sums `numEvents` of source `trackEvents`, and counts the
distinct visitors, by the properties that a decision is sent with. `count` of a field counts its distinct values:
docs/reconcile.md cites Pendo's own example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flagpost_consumer.adapters.http.answers import Reply
from flagpost_consumer.adapters.http.client import HttpClient, NoAnswerInTime, NoReply
from flagpost_consumer.adapters.pendo.address import INTEGRATION_KEY_HEADER
from flagpost_consumer.commands.reconcile.at_pendo import AtPendo
from flagpost_consumer.commands.reconcile.counting import Row
from flagpost_consumer.settings import PendoSettings

TIMEOUT_SECONDS = 300.0
"""Pendo gives up after five minutes itself."""
MAX_COUNTS_BYTES = 67_108_864
"""The rest of a longer answer is not read."""
DAY_MS = 86_400_000
COUNTED, VISITORS = "counted", "visitors"


class PendoNotCounting(Exception):  # noqa: N818 (a fact, told by an exception)
    """Pendo returned no counts; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Days:
    """Whole days, in the form of Pendo's `timeSeries`."""

    first_ms: int
    """The midnight (UTC) at which they begin."""
    count: int


def days_of(since_ms: int, until_ms: int) -> Days:
    """The days that overlap a window."""
    first = since_ms // DAY_MS
    return Days(first * DAY_MS, max(1, -(-until_ms // DAY_MS) - first))


async def count_decisions(pendo: PendoSettings, event_name: str, days: Days) -> dict[Row, AtPendo]:
    """Pendo's counts of the decisions sent as `event_name`; rows that Pendo does not have are left out.

    Raises:
        PendoNotCounting: there is no answer with counts.
        SettingsError: the integration key cannot be read.
    """
    key = pendo.integration_key_source
    if key is None:
        raise PendoNotCounting("--pendo needs Pendo's integration key: set pendo.integration_key")
    counts: dict[Row, AtPendo] = {}
    async with HttpClient(pendo.outbound) as http:
        api = _Aggregation(http, pendo, key.current())
        # An event name has an id in each application that sends it.
        for type_id in _ids(await api.run([{"source": {"trackTypes": None}}]), event_name):
            for row, found in _counts(await api.run(_pipeline(type_id, days))):
                before = counts.get(row)
                # A visitor may be counted in both: Pendo does not say.
                counts[row] = found if before is None else AtPendo(before.events + found.events, None)
    return counts


def _pipeline(type_id: str, days: Days) -> list[dict[str, Any]]:
    series = {"period": "dayRange", "first": days.first_ms, "count": days.count}
    by = ["properties.flag_key", "properties.variation_key"]
    return [
        {"source": {"trackEvents": {"trackTypeId": type_id}, "timeSeries": series}},
        {
            "group": {
                "group": by,
                "fields": {COUNTED: {"sum": "numEvents"}, VISITORS: {"count": "visitorId"}},
            }
        },
    ]


class _Aggregation:
    """The endpoint."""

    def __init__(self, http: HttpClient, pendo: PendoSettings, key: str) -> None:
        self._http = http
        self._headers = {INTEGRATION_KEY_HEADER: key, "content-type": "application/json"}
        self._region = pendo.region.value
        self._url = f"{pendo.urls.api}/api/v1/aggregation"

    async def run(self, pipeline: list[dict[str, Any]]) -> list[Any]:
        """The rows of a pipeline. Raises PendoNotCounting."""
        body = {"response": {"mimeType": "application/json"}, "request": {"pipeline": pipeline}}
        reply = await self._post(orjson.dumps(body))
        if not 200 <= reply.status < 300:
            raise PendoNotCounting(f"{self._url}: status {reply.status}; {self._what_to_do(reply.status)}")
        return self._rows(reply.body)

    async def _post(self, body: bytes) -> Reply:
        try:
            return await self._http.fetch(
                "POST",
                self._url,
                self._headers,
                body=body,
                timeout_seconds=TIMEOUT_SECONDS,
                max_body_bytes=MAX_COUNTS_BYTES,
            )
        except NoAnswerInTime:
            raise PendoNotCounting(
                f"{self._url}: no answer within {TIMEOUT_SECONDS:g} s; choose a shorter window with --since"
            ) from None
        except NoReply as error:
            raise PendoNotCounting(
                f"{self._url}: {error}; "
                "check pendo.region, pendo.api_url, pendo.proxy, pendo.ca_file and the firewall"
            ) from None

    def _what_to_do(self, status: int) -> str:
        if status in (401, 403):
            return "Pendo refuses pendo.integration_key: create one in Settings > Integrations > Integration keys"
        if status == 404 or 300 <= status < 400:
            return f"the address may be of another region: set pendo.region ({self._region} now) or pendo.api_url"
        if status in (408, 413, 504):
            return "the window is too large for Pendo: choose a shorter one with --since"
        if status == 400:
            return "Pendo does not accept Flagpost's request: please report this as a bug"
        return "try again later; https://status.pendo.io reports outages"

    def _rows(self, answer: bytes) -> list[Any]:
        try:
            given = orjson.loads(answer)
        except orjson.JSONDecodeError:
            given = None
        rows = given.get("results") if isinstance(given, dict) else given
        if not isinstance(rows, list):
            raise PendoNotCounting(
                f"{self._url}: the answer is not from Pendo: check pendo.api_url, and proxies in between"
            )
        return rows


def _ids(rows: list[Any], event_name: str) -> Iterator[str]:
    for row in rows:
        if isinstance(row, dict) and event_name in (row.get("name"), row.get("trackTypeName")):
            type_id = row.get("id")
            if isinstance(type_id, str):
                yield type_id


def _counts(rows: list[Any]) -> Iterator[tuple[Row, AtPendo]]:
    """Rows with a flag; an event of the same name without one is not a decision."""
    for row in rows:
        flag, events = _property(row, "flag_key"), _number(row, COUNTED)
        if flag is not None and events is not None:
            yield (flag, _property(row, "variation_key")), AtPendo(events, _number(row, VISITORS))


def _number(row: Any, name: str) -> int | None:  # noqa: ANN401 (any JSON)
    number = row.get(name) if isinstance(row, dict) else None
    return int(number) if isinstance(number, int | float) else None


def _property(row: Any, name: str) -> str | None:  # noqa: ANN401 (any JSON)
    """The value by which a row is grouped: nested by the group's name, or flat under one of its names."""
    if not isinstance(row, dict):
        return None
    nested = row.get("properties")
    places: tuple[Mapping[str, Any], ...] = (nested, row) if isinstance(nested, dict) else (row,)
    found = (place.get(key) for place in places for key in (name, f"properties.{name}"))
    return next((value for value in found if isinstance(value, str) and value), None)
