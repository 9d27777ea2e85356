"""How Pendo is, as the consumers tell it.

In: the addresses of `web.consumers`, each a name that may stand for several pods. Out: what each one's /status says
of Pendo, or why it does not answer. Bounded in pods, bytes and seconds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson

ASK_SECONDS: Final = 5.0
"""How often they are asked."""
ANSWER_SECONDS: Final = 3.0
MAX_CONSUMERS: Final = 64
MAX_BYTES: Final = 1_000_000
ENDPOINTS: Final = ("track", "metadata")


@dataclass(frozen=True, slots=True)
class Consumer:
    """One consumer's word."""

    address: str
    states: Mapping[str, str] = field(default_factory=dict)
    """Of each endpoint of Pendo's: ok, throttled, unreachable, unauthorized."""
    pending: int = 0
    partitions: int = 0
    stalled: tuple[str, ...] = ()
    """Why partitions make no progress."""
    wrong: str | None = None
    """Why there is no answer."""


class Consumers:
    """Asks them all, again and again."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self.told: tuple[Consumer, ...] = ()
        """What they said last."""

    @property
    def are_known(self) -> bool:
        """Whether there are any to ask."""
        return bool(self._urls)

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while self._urls:
                self.told = await self._ask_all(session)
                await asyncio.sleep(ASK_SECONDS)

    async def _ask_all(self, session: aiohttp.ClientSession) -> tuple[Consumer, ...]:
        found = await asyncio.gather(*(_addresses(url) for url in self._urls))
        asked = [_ask(session, url) for urls in found for url in urls][:MAX_CONSUMERS]
        return tuple(await asyncio.gather(*asked))


async def _addresses(url: str) -> list[str]:
    """All that a name stands for: in Kubernetes a headless Service has an address for each pod."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):  # the last: of a name that can be none
        return [url]
    hosts = sorted({str(each[4][0]) for each in found})
    return [f"http://[{each}]:{port}" if ":" in each else f"http://{each}:{port}" for each in hosts]


async def _ask(session: aiohttp.ClientSession, url: str) -> Consumer:
    address = urlsplit(url).netloc
    try:
        async with session.get(f"{url}/status", allow_redirects=False) as answer:
            body = await answer.content.read(MAX_BYTES)
            while len(body) < MAX_BYTES and (more := await answer.content.read(MAX_BYTES - len(body))):
                body += more
        if answer.status != 200:
            return Consumer(address, wrong=f"it answers with status {answer.status}")
        return _read(address, orjson.loads(body))
    except TimeoutError:
        return Consumer(address, wrong=f"no answer within {ANSWER_SECONDS:g} s")
    except (aiohttp.ClientError, OSError):
        return Consumer(address, wrong="it cannot be reached")
    except (ValueError, TypeError, KeyError, AttributeError):
        return Consumer(address, wrong="what answers there is no consumer of Flagpost's")


def _read(address: str, status: Mapping[str, Any]) -> Consumer:
    assignment = status["assignment"]
    return Consumer(
        address,
        {name: str(status["endpoints"][name]["state"]) for name in ENDPOINTS},
        sum(map(int, status["pending"].values())),
        len(assignment),
        tuple(sorted({str(each["stalled"]["reason"]) for each in assignment if "stalled" in each})),
    )
