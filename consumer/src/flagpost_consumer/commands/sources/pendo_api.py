"""Reads Pendo's API for commands, with the integration key and the proxy of the settings.

In: settings. Out: answers, or documents.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from flagpost_consumer.adapters.http.answers import MAX_ANSWER_BYTES, Reply
from flagpost_consumer.adapters.http.client import HttpClient, NoReply
from flagpost_consumer.adapters.pendo.address import INTEGRATION_KEY_HEADER
from flagpost_consumer.settings import PendoSettings

TIMEOUT_SECONDS = 10.0


class PendoApi:
    """Pendo's API, for reading."""

    def __init__(self, url: str, fetch: Callable[[str], Awaitable[Reply]]) -> None:
        """`fetch` requests a URL with the key, within its limits."""
        self._url = url
        self._fetch = fetch

    async def get(self, path: str) -> Reply:
        """The answer to a GET. Raises NoReply."""
        return await self._fetch(self._url + path)

    async def get_json(self, path: str) -> bytes | None:
        """A document; None if there is no answer, or not 200."""
        try:
            reply = await self.get(path)
        except NoReply:
            return None
        return reply.body if reply.status == 200 else None


@asynccontextmanager
async def pendo_api(
    pendo: PendoSettings, *, timeout_seconds: float | None = None, max_body_bytes: int = MAX_ANSWER_BYTES
) -> AsyncIterator[PendoApi | None]:
    """The API, for the duration of the block; None: there is no integration key.

    Raises:
        SettingsError: the key, or the proxy, cannot be used.
    """
    key = pendo.integration_key_source
    if key is None:
        yield None
        return
    async with HttpClient(pendo.outbound) as http:
        yield PendoApi(
            pendo.urls.api,
            partial(
                http.fetch,
                "GET",
                headers={INTEGRATION_KEY_HEADER: key.current()},
                timeout_seconds=timeout_seconds or TIMEOUT_SECONDS,
                max_body_bytes=max_body_bytes,
            ),
        )
