"""Reads of Pendo's API by commands: with the integration key, the way that the settings give.

In: settings. Out: answers, or documents.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flagpost_consumer.adapters.http_answers import Reply
from flagpost_consumer.adapters.http_client import HttpClient, NoReply
from flagpost_consumer.adapters.pendo_http import INTEGRATION_KEY_HEADER
from flagpost_consumer.settings import PendoSettings

TIMEOUT_SECONDS = 10.0


class PendoApi:
    """Pendo's API, for reading."""

    def __init__(self, http: HttpClient, url: str, key: str) -> None:
        self._http = http
        self._url = url
        self._headers = {INTEGRATION_KEY_HEADER: key}

    async def get(self, path: str) -> Reply:
        """The answer to a GET. Raises NoReply."""
        return await self._http.fetch("GET", self._url + path, self._headers, timeout_seconds=TIMEOUT_SECONDS)

    async def get_json(self, path: str) -> bytes | None:
        """A document; None where there is no answer, or another than 200."""
        try:
            reply = await self.get(path)
        except NoReply:
            return None
        return reply.body if reply.status == 200 else None


@asynccontextmanager
async def pendo_api(pendo: PendoSettings) -> AsyncIterator[PendoApi | None]:
    """The API, as long as the block runs; None: there is no integration key.

    Raises:
        SettingsError: the key, or the proxy, cannot be used.
    """
    key = pendo.integration_key_source
    if key is None:
        yield None
        return
    async with HttpClient(pendo.outbound) as http:
        yield PendoApi(http, pendo.urls.api, key.current())
