"""The state of running consumers from their /status, if an admin address can be reached from here.

In: addresses, and the group. Out: a `ConsumerState` for each consumer of the group that answers; the others are left
out, because usually they cannot be reached; `ask_state` says why for a single one. They are asked directly, without
proxies, and the answer is read tolerantly: a consumer may be of another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.settings import AdminSettings, Settings
from flagpost_settings.outbound import NO_PROXY, Outbound
from flagpost_settings.urls import authority

if TYPE_CHECKING:
    from flagpost_consumer.adapters.http.client import HttpClient

TIMEOUT_SECONDS = 3.0
MAX_STATUS_BYTES = 1_048_576
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared
"""Where a server that listens on all addresses is reached from the same machine."""


@dataclass(frozen=True, slots=True)
class EndpointSaid:
    """A consumer's report on one of Pendo's endpoints."""

    state: str
    """As in `EndpointState`, or a word that only another release knows."""
    successes: int = 0
    """Requests that Pendo accepted since the consumer started."""
    status: str = ""
    """The answer that caused this state; empty: the state is ok."""
    to_do: str = ""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition, according to the consumer that has it."""

    position: int | None
    """The offset that is read next."""
    is_restored: bool
    stalled: str | None
    """Why it makes no progress; None: it does."""


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """The report of one consumer."""

    url: str
    is_paused: bool
    endpoints: Mapping[EndpointName, EndpointSaid]
    partitions: Mapping[int, PartitionState]
    group: str = ""
    pending: int = 0
    """Deliveries that have not ended."""


class NotTold(Exception):  # noqa: N818 (a fact, told by an exception)
    """A consumer does not report its state; the text says why."""


def admin_urls(given: Sequence[str], admin: AdminSettings) -> list[str]:
    """The addresses to ask: as given, or the one on this machine for a consumer with these settings, if known."""
    if given or not admin.port:
        return [url.rstrip("/") for url in given]
    return [f"http://{authority(_EVERYWHERE.get(admin.host, admin.host), admin.port)}"]


async def ask_consumer(settings: Settings) -> ConsumerState | None:
    """Ask at `admin.host` and `admin.port`, if a port is set."""
    told = await ask_consumers(admin_urls((), settings.admin), settings.kafka.group_id)
    return told[0] if told else None


async def ask_consumers(
    urls: Sequence[str],
    group: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    unheard: Callable[[str, str], object] = lambda url, why: None,  # noqa: ARG005 - nobody asks
) -> list[ConsumerState]:
    """Ask all at once; returns the answers of the group's consumers, and calls `unheard` with each other address and
    the reason.
    """
    async with directly() as http:
        asked = (ask_state(http, url, timeout_seconds) for url in urls)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    found = []
    for url, answer in zip(urls, answers, strict=True):
        if isinstance(answer, NotTold):
            unheard(url, str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.group != group:
            unheard(url, f"it is a consumer of the group {answer.group}, not {group}")
        else:
            found.append(answer)
    return found


def directly() -> HttpClient:
    """A client that asks consumers without a proxy; a context manager."""
    from flagpost_consumer.adapters.http.client import HttpClient  # noqa: PLC0415 - not for help

    return HttpClient(Outbound("admin", NO_PROXY))


async def ask_state(http: HttpClient, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> ConsumerState:
    """Ask one consumer of any group. Raises NotTold."""
    from flagpost_consumer.adapters.http.client import NoAnswerInTime, NoReply  # noqa: PLC0415 - not for help

    try:
        reply = await http.fetch(
            "GET",
            f"{url}/status",
            {},
            timeout_seconds=timeout_seconds,
            max_body_bytes=MAX_STATUS_BYTES,
        )
    except NoAnswerInTime:
        raise NotTold(f"no answer within {timeout_seconds:g} s") from None
    except NoReply:
        raise NotTold("it cannot be reached") from None
    if reply.status != 200:
        raise NotTold(f"it answers with status {reply.status}")
    try:
        return _state(url, orjson.loads(reply.body))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotTold("the program that answers there is not a Flagpost consumer") from None


def _state(url: str, told: Any) -> ConsumerState:  # noqa: ANN401 (any JSON)
    return ConsumerState(
        url,
        told.get("intake_paused") is True,
        {name: _endpoint(told["endpoints"][name.value]) for name in EndpointName},
        {int(each["partition"]): _partition(each) for each in told.get("assignment", ())},
        str(told["group"]),
        sum(map(int, told.get("pending", {}).values())),
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
