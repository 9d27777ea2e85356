"""The schema registry, asked for the schemas of Confluent's wire format.

In: a schema id. Out: the schema's JSON, or one of two errors: the registry has no such Avro schema (its record can
be dead-lettered), or it does not answer (its record waits). Only a registry's own 404 counts as the first: a 404
from a proxy or a wrong path must not turn good records into dead letters.
"""

from __future__ import annotations

from typing import Any

import orjson

from flagpost_consumer.adapters.http_client import HttpClient, NoReply, basic
from flagpost_consumer.settings import SchemaRegistrySettings, SettingsError

TIMEOUT_SECONDS = 10.0
NOT_FOUND_CODES = range(40_400, 40_500)
"""The registry's own words for what it does not have: 40403 for a schema (Confluent's API; Apicurio's too). An
address that it does not know is 404 with code 404 or 0, which says nothing about schemas."""


class SchemaDoesNotExist(Exception):  # noqa: N818 (a fact, told by an exception)
    """The registry answered: it has no Avro schema with this id."""


class RegistryNotAnswering(Exception):  # noqa: N818
    """No answer, or none that a registry gives; ask again later."""


class SchemaRegistry:
    """A client of Confluent's schema registry API."""

    def __init__(self, url: str, settings: SchemaRegistrySettings) -> None:
        """Nothing is opened: ids are asked for so rarely that each call has a connection of its own.

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

    async def fetch(self, schema_id: int) -> str:
        """The schema's JSON.

        Raises:
            SchemaDoesNotExist: there is none, or it is not Avro, or it refers to others.
            RegistryNotAnswering: whatever else is not the schema.
        """
        url = f"{self._url}/schemas/ids/{schema_id}"
        try:
            status, answer = await self._get(url)
        except (NoReply, SettingsError) as error:
            raise RegistryNotAnswering(f"{url}: {error}") from error
        if status == 404 and answer.get("error_code") in NOT_FOUND_CODES:
            raise SchemaDoesNotExist(f"the registry has no schema with id {schema_id}")
        if status != 200:
            raise RegistryNotAnswering(f"{url}: status {status}; see kafka.schema_registry")
        return _avro(schema_id, answer)

    async def _get(self, url: str) -> tuple[int, dict[str, Any]]:
        async with HttpClient(self._outbound) as http:
            reply = await http.fetch("GET", url, self._credentials(), timeout_seconds=TIMEOUT_SECONDS)
        return reply.status, _json_object(reply.body)

    def _credentials(self) -> dict[str, str]:
        if self._username is None:
            return {}
        password = "" if self._password is None else self._password.current()
        return {"authorization": basic(self._username, password)}


def _json_object(body: bytes) -> dict[str, Any]:
    """The answer; what is no JSON object says nothing, whatever its status."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _avro(schema_id: int, answer: dict[str, Any]) -> str:
    schema = answer.get("schema")
    if not isinstance(schema, str):
        raise RegistryNotAnswering(f"the answer for schema id {schema_id} holds no schema")
    kind = answer.get("schemaType", "AVRO")
    if kind != "AVRO":
        raise SchemaDoesNotExist(f"the schema with id {schema_id} is {kind}, not Avro")
    if answer.get("references"):
        raise SchemaDoesNotExist(
            f"the schema with id {schema_id} refers to others, which Flagpost does not follow"
        )
    return schema
