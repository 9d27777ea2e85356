"""What a running consumer says of Pendo, where its admin address can be reached from here.

In: settings. Out: a `ConsumerState`, or None: nobody of this group answers there. It is asked directly, whatever
proxies there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flagpost_consumer.adapters.http_client import HttpClient, NoReply
from flagpost_consumer.core.endpoint import EndpointState
from flagpost_consumer.core.records import EndpointName
from flagpost_consumer.settings import AdminSettings, Settings
from flagpost_settings.outbound import NO_PROXY, Outbound
from flagpost_settings.urls import authority

TIMEOUT_SECONDS = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
"""Where what listens everywhere is reached from the same machine."""


@dataclass(frozen=True, slots=True)
class EndpointSaid:
    """What a consumer says of one endpoint."""

    state: EndpointState
    successes: int
    """Requests that Pendo took since the consumer started."""
    status: str
    """Of the answer for which it is in this state; empty: it is ok."""
    to_do: str


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What one consumer says."""

    url: str
    endpoints: Mapping[EndpointName, EndpointSaid]


def admin_url(admin: AdminSettings) -> str | None:
    """Where a consumer with these settings is asked from the same machine; None: its port is not known."""
    if not admin.port:
        return None
    return f"http://{authority(_EVERYWHERE.get(admin.host, admin.host), admin.port)}"


async def ask_consumer(settings: Settings) -> ConsumerState | None:
    """Ask at `admin.host` and `admin.port`, if a port is set."""
    url = admin_url(settings.admin)
    if url is None:
        return None
    async with HttpClient(Outbound("admin", NO_PROXY)) as http:
        try:
            reply = await http.fetch("GET", f"{url}/status", {}, timeout_seconds=TIMEOUT_SECONDS)
        except NoReply:
            return None
    try:
        status = orjson.loads(reply.body)
        if status["group"] != settings.kafka.group_id:
            return None
        return ConsumerState(url, {name: _said(status["endpoints"][name.value]) for name in EndpointName})
    except (ValueError, KeyError, TypeError):  # whatever it is that answers there, it is no consumer
        return None


def _said(told: Mapping[str, Any]) -> EndpointSaid:
    return EndpointSaid(
        EndpointState(told["state"]),
        int(told["successes"]),
        str(told.get("status", "")),
        str(told.get("to_do", "")),
    )
