"""What the consumers say of themselves: their /status, where the admin address can be reached from here.

In: addresses. Out: a `ConsumerState` for each that answers; one that does not is left out, for from most places it
cannot be reached. Read tolerantly: it may be another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flagpost_consumer.adapters.http_client import HttpClient, NoReply
from flagpost_consumer.settings import AdminSettings
from flagpost_settings.outbound import Outbound
from flagpost_settings.urls import authority

TIMEOUT_SECONDS = 1.0
MAX_STATUS_BYTES = 4_194_304
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what a server listens on, by what it is asked at)


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
    """One process."""

    url: str
    is_paused: bool
    endpoints: Mapping[str, str]
    """`track` and `metadata`, each with its state."""
    partitions: Mapping[int, PartitionState]

    @property
    def pendos_state(self) -> str:
        """The state of the track endpoint, for which intake pauses."""
        return self.endpoints.get("track", "unknown")


def admin_urls(given: Sequence[str], admin: AdminSettings) -> list[str]:
    """Where to ask: as given, or where a consumer with these settings listens on this machine."""
    if given or not admin.port:
        return [url.rstrip("/") for url in given]
    return [f"http://{authority(ANYWHERE.get(admin.host, admin.host), admin.port)}"]


async def ask_consumers(urls: Sequence[str]) -> list[ConsumerState]:
    """Ask all at once; those that answer."""
    async with HttpClient(Outbound("admin", "none", None)) as http:
        answers = await asyncio.gather(*(_ask(http, url) for url in urls))
    return [state for state in answers if state is not None]


async def _ask(http: HttpClient, url: str) -> ConsumerState | None:
    try:
        reply = await http.fetch(
            "GET",
            f"{url}/status",
            {},
            timeout_seconds=TIMEOUT_SECONDS,
            max_body_bytes=MAX_STATUS_BYTES,
        )
        return _state(url, orjson.loads(reply.body)) if reply.status == 200 else None
    except (NoReply, ValueError, KeyError, TypeError, AttributeError):  # somebody else answers there
        return None


def _state(url: str, told: Any) -> ConsumerState:  # noqa: ANN401 (any JSON)
    return ConsumerState(
        url,
        told["intake_paused"] is True,
        {str(name): str(endpoint["state"]) for name, endpoint in told["endpoints"].items()},
        {int(each["partition"]): _partition(each) for each in told["assignment"]},
    )


def _partition(told: Any) -> PartitionState:  # noqa: ANN401 (any JSON)
    position, stalled = told.get("position"), told.get("stalled")
    return PartitionState(
        position if isinstance(position, int) else None,
        told.get("restored") is True,
        None if not isinstance(stalled, dict) else f"{stalled.get('reason')}: {stalled.get('detail')}",
    )
