"""A client of the schema registry, for the schemas of Confluent's wire format.

In: a schema id. Out: the schema's JSON, or an error that says which of three it is: the registry does not return this
schema (now: it may be a replica that is behind, or a right is missing), no record can be read with it, or the
registry says nothing about it.
"""

from __future__ import annotations

import ssl
from typing import Any, Self

import orjson

from flagpost_consumer.adapters.http.client import HttpClient, NoReply
from flagpost_consumer.adapters.registry.errors import (
    RegistryNotAnswering,
    RegistryTurnsAway,
    SchemaDoesNotExist,
    SchemaRefused,
    SchemaUnusable,
)
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.settings import SchemaRegistrySettings, SettingsError
from flagpost_settings.outbound import basic

TIMEOUT_SECONDS = 10.0
MAX_KIND_CHARACTERS = 20
NOT_FOUND_CODES = range(40_400, 40_500)
"""The registry's own codes for what it does not have: 40403 for a schema (Confluent's API; Apicurio's too). An
unknown address is 404 with code 404 or 0, which says nothing about schemas.
"""


TURNED_AWAY = frozenset({401, 407, 408, 425, 429})
"""The 4xx that concern the client or the moment: credentials, time-outs, too many requests."""


class SchemaRegistry:
    """A client of Confluent's schema registry API; an async context manager, which closes its connections.

    Connections are kept for a while, and made again with certificates that were replaced.
    """

    def __init__(self, url: str, settings: SchemaRegistrySettings) -> None:
        """Opens nothing yet.

        Args:
            url: the address of the API, such as http://registry:8081.
            settings: the user name and the password, if there are any; proxy and certificates.

        Raises:
            SettingsError: the environment's proxy cannot be used.
        """
        self._url = url.rstrip("/")
        self._outbound = settings.outbound
        HttpClient(self._outbound).check_proxy(self._url)
        self._username = settings.username
        self._password = settings.password_source
        self._http: HttpClient | None = None
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        """Opens nothing; the first request does."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def fetch(self, schema_id: int) -> str:
        """Return the schema's JSON.

        Raises:
            SchemaRefused: the answer is 404, 403, or another 4xx about this id.
            SchemaUnusable: it is not Avro, or it refers to others.
            RegistryNotAnswering: any other answer, or none.
        """
        url = f"{self._url}/schemas/ids/{schema_id}"
        try:
            status, answer = await self._get(url)
        except (NoReply, SettingsError) as error:
            raise RegistryNotAnswering(f"{url}: {error}") from error
        if status in TURNED_AWAY:
            raise RegistryTurnsAway(f"{url}: status {status}; see kafka.schema_registry")
        if 400 <= status < 500:
            raise _refusal(schema_id, status, answer)
        if status != 200:
            raise RegistryNotAnswering(f"{url}: status {status}; see kafka.schema_registry")
        return _avro(schema_id, answer)

    async def _get(self, url: str) -> tuple[int, dict[str, Any]]:
        http = await self._client()
        reply = await http.fetch("GET", url, self._credentials(), timeout_seconds=TIMEOUT_SECONDS)
        return reply.status, _json_object(reply.body)

    async def _client(self) -> HttpClient:
        """Raises SettingsError: a file of certificates cannot be used."""
        tls = self._outbound.tls()
        if self._http is not None and tls is not self._tls:
            await self.close()
        if self._http is None:
            self._http, self._tls = HttpClient(self._outbound), tls
            self._http.open()
        return self._http

    def _credentials(self) -> dict[str, str]:
        if self._username is None:
            return {}
        password = "" if self._password is None else self._password.current()
        return {"authorization": basic(self._username, password)}


def _json_object(body: bytes) -> dict[str, Any]:
    """Parse the answer; what is not a JSON object counts as empty, whatever its status."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal(schema_id: int, status: int, answer: dict[str, Any]) -> SchemaRefused:
    if status == 404 and answer.get("error_code") in NOT_FOUND_CODES:
        return SchemaDoesNotExist(f"the registry has no schema with id {schema_id}")
    if status == 403:
        return SchemaRefused("status 403 of the registry: a missing right, to read this schema")
    if status == 404:
        return SchemaRefused("status 404, not in a schema registry's words: check kafka.schema_registry.url")
    return SchemaRefused(f"status {status} of the registry")


def _avro(schema_id: int, answer: dict[str, Any]) -> str:
    schema = answer.get("schema")
    if not isinstance(schema, str):
        raise RegistryNotAnswering(f"the answer for schema id {schema_id} holds no schema")
    kind = answer.get("schemaType", "AVRO")
    if kind != "AVRO":
        raise SchemaUnusable(
            f"the schema with id {schema_id} is {legible(str(kind), MAX_KIND_CHARACTERS)}, not Avro"
        )
    if answer.get("references"):
        raise SchemaUnusable(
            f"the schema with id {schema_id} refers to others, which Flagpost does not follow"
        )
    return schema
