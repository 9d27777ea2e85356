"""Pendo's state, as the consumers report it.

In: the addresses of `web.consumers`, each a name that may stand for several pods. Out: each one's /status about
Pendo, or why it does not answer. Bounded in pods, bytes and seconds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from flagpost_consumer.adapters.http.client import HttpClient
from flagpost_consumer.commands.sources.consumer_state import NotTold, ask_state, directly

ASK_SECONDS: Final = 5.0
"""How often to ask the consumers."""
RESOLVE_SECONDS: Final = 3.0
MAX_CONSUMERS: Final = 64


@dataclass(frozen=True, slots=True)
class Consumer:
    """One consumer's report."""

    address: str
    states: Mapping[str, str] = field(default_factory=dict)
    """For each endpoint of Pendo: ok, throttled, unreachable, unauthorized."""
    pending: int = 0
    partitions: int = 0
    stalled: tuple[str, ...] = ()
    """Why partitions make no progress."""
    wrong: str | None = None
    """Why there is no answer."""


class Consumers:
    """Asks all consumers, again and again."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self.told: tuple[Consumer, ...] = ()
        """Their last reports."""

    @property
    def are_known(self) -> bool:
        """Whether any consumers are configured."""
        return bool(self._urls)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with directly() as http:
            while self._urls:
                self.told = await self._ask_all(http)
                await asyncio.sleep(ASK_SECONDS)

    async def _ask_all(self, http: HttpClient) -> tuple[Consumer, ...]:
        found = await asyncio.gather(*(_addresses(url) for url in self._urls))
        asked = [_ask(http, url) for urls in found for url in urls][:MAX_CONSUMERS]
        return tuple(await asyncio.gather(*asked))


async def _addresses(url: str) -> list[str]:
    """All addresses of a name: in Kubernetes a headless Service has one for each pod."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):  # UnicodeError: the name cannot be a host name
        return [url]
    hosts = sorted({str(each[4][0]) for each in found})
    return [f"http://[{each}]:{port}" if ":" in each else f"http://{each}:{port}" for each in hosts]


async def _ask(http: HttpClient, url: str) -> Consumer:
    address = urlsplit(url).netloc
    try:
        state = await ask_state(http, url)
    except NotTold as why:
        return Consumer(address, wrong=str(why))
    stalled = (each.stalled for each in state.partitions.values() if each.stalled is not None)
    return Consumer(
        address,
        {name.value: said.state for name, said in state.endpoints.items()},
        state.pending,
        len(state.partitions),
        # Its detail may be long, and contain topics: the reason is enough here.
        tuple(sorted({why.partition(":")[0] for why in stalled})),
    )
