"""What running consumers say of themselves: their /status, where an admin address can be reached from here.

In: addresses, and the group. Out: a `ConsumerState` for each consumer of the group that answers; one that does not is
left out, for from most places it cannot be reached. They are asked directly, whatever proxies there are, and read
tolerantly: a consumer may be of another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flagpost_consumer.adapters.http_client import HttpClient, NoReply
from flagpost_consumer.core.records import EndpointName
from flagpost_consumer.settings import AdminSettings, Settings
from flagpost_settings.outbound import NO_PROXY, Outbound
from flagpost_settings.urls import authority

TIMEOUT_SECONDS = 3.0
MAX_STATUS_BYTES = 4_194_304
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
"""Where what listens everywhere is reached from the same machine."""


@dataclass(frozen=True, slots=True)
class EndpointSaid:
    """What a consumer says of one of Pendo's endpoints."""

    state: str
    """As `EndpointState` has it, or what only another release knows."""
    successes: int = 0
    """Requests that Pendo took since the consumer started."""
    status: str = ""
    """Of the answer for which it is in this state; empty: it is ok."""
    to_do: str = ""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition, as the consumer that has it tells."""

    position: int | None
    """The offset that is read next."""
    is_restored: bool
    stalled: str | None
    """Why it makes no progress; None: it does."""


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What one consumer says."""

    url: str
    is_paused: bool
    endpoints: Mapping[EndpointName, EndpointSaid]
    partitions: Mapping[int, PartitionState]


def admin_urls(given: Sequence[str], admin: AdminSettings) -> list[str]:
    """Where to ask: as given, or where a consumer with these settings listens on this machine, if that is known."""
    if given or not admin.port:
        return [url.rstrip("/") for url in given]
    return [f"http://{authority(_EVERYWHERE.get(admin.host, admin.host), admin.port)}"]


async def ask_consumer(settings: Settings) -> ConsumerState | None:
    """Ask at `admin.host` and `admin.port`, if a port is set."""
    told = await ask_consumers(admin_urls((), settings.admin), settings.kafka.group_id)
    return told[0] if told else None


async def ask_consumers(
    urls: Sequence[str], group: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[ConsumerState]:
    """Ask all at once; those of the group that answer."""
    async with HttpClient(Outbound("admin", NO_PROXY)) as http:
        answers = await asyncio.gather(*(_ask(http, url, group, timeout_seconds) for url in urls))
    return [state for state in answers if state is not None]


async def _ask(http: HttpClient, url: str, group: str, timeout_seconds: float) -> ConsumerState | None:
    try:
        reply = await http.fetch(
            "GET",
            f"{url}/status",
            {},
            timeout_seconds=timeout_seconds,
            max_body_bytes=MAX_STATUS_BYTES,
        )
        told = orjson.loads(reply.body)
        return _state(url, told) if told["group"] == group else None
    except (NoReply, ValueError, KeyError, TypeError, AttributeError):  # somebody else answers there
        return None


def _state(url: str, told: Any) -> ConsumerState:  # noqa: ANN401 (any JSON)
    return ConsumerState(
        url,
        told.get("intake_paused") is True,
        {name: _endpoint(told["endpoints"][name.value]) for name in EndpointName},
        {int(each["partition"]): _partition(each) for each in told.get("assignment", ())},
    )


def _endpoint(told: Any) -> EndpointSaid:  # noqa: ANN401 (any JSON)
    state = told["state"]
    if not isinstance(state, str):
        raise TypeError(state)
    return EndpointSaid(
        state,
        int(told.get("successes", 0)),
        str(told.get("status", "")),
        str(told.get("to_do", "")),
    )


def _partition(told: Any) -> PartitionState:  # noqa: ANN401 (any JSON)
    position, stalled = told.get("position"), told.get("stalled")
    return PartitionState(
        position if isinstance(position, int) else None,
        told.get("restored") is True,
        None if not isinstance(stalled, dict) else f"{stalled.get('reason')}: {stalled.get('detail')}",
    )
