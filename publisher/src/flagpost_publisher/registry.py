"""Schema ids from a Confluent schema registry.

In: the registry's URL and the topic. Out: the id of each event class's schema, or RegistryTrouble; and of the ids,
what stands before each event's body. Blocks for network calls: for a thread that nobody waits for only.
"""

from __future__ import annotations

import base64
import json
import operator
import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from flagpost_publisher.errors import RegistryTrouble
from flagpost_schemas import EVENT_TYPES, confluent_header, schema_of, single_object_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flagpost_schemas import Event

USER_INFO_PROPERTY: Final = "schema.registry.basic.auth.user.info"
CA_PROPERTY: Final = "schema.registry.ssl.ca.location"
TIMEOUT_SECONDS: Final = 5.0
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


def event_headers(ids: Mapping[type[Event], int] | None) -> dict[type[Event], bytes]:
    """What stands before each event's body: with `ids`, Confluent's header; without, single-object encoding's."""
    if ids is None:
        return {each: single_object_header(schema_of(each).fingerprint) for each in EVENT_TYPES}
    return {each: confluent_header(ids[each]) for each in EVENT_TYPES}


class Registry:
    """A schema registry.

    `url` may hold `user:password@`; so may the property `schema.registry.basic.auth.user.info`
    (`user:password`). `schema.registry.ssl.ca.location` is a file of trusted certificates.
    """

    def __init__(self, url: str, properties: Mapping[str, Any]) -> None:
        """Makes no call yet."""
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self._headers = {"content-type": _CONTENT_TYPE, "accept": _CONTENT_TYPE}
        user_info = properties.get(USER_INFO_PROPERTY) or unquote(parts.netloc.rpartition("@")[0])
        if user_info:
            self._headers["authorization"] = f"Basic {base64.b64encode(user_info.encode()).decode()}"
        self._ca_file = properties.get(CA_PROPERTY)

    def ids_for(self, topic: str) -> dict[type[Event], int]:
        """The schema id of every event class, registering schemas that are missing.

        The subject is `<topic>-<record's full name>` (TopicRecordNameStrategy). Raises RegistryTrouble.
        """
        schemas = {event_type: schema_of(event_type) for event_type in EVENT_TYPES}
        return {
            each: self._schema_id(f"{topic}-{schema.full_name}", schema.text)
            for each, schema in schemas.items()
        }

    def _schema_id(self, subject: str, schema: str) -> int:
        path = f"/subjects/{quote(subject, safe='')}"
        try:
            try:
                return self._post(path, schema)
            except HTTPError as error:
                if error.code != 404:  # 404: not registered yet
                    raise
            return self._post(f"{path}/versions", schema)
        except HTTPError as error:
            raise _refused(subject, error.code) from None

    def _post(self, path: str, schema: str) -> int:
        """The id in the registry's answer. Raises HTTPError for another status than 2xx, else RegistryTrouble."""
        body = json.dumps({"schema": schema}).encode()
        request = Request(self._url + path, body, self._headers)  # noqa: S310 - http or https: checked at the start
        try:
            context = (
                ssl.create_default_context(cafile=self._ca_file) if self._url.startswith("https") else None
            )
            with urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310 - see above
                return operator.index(json.load(answer)["id"])
        except HTTPError as error:
            error.close()
            raise
        except (OSError, HTTPException, ValueError, TypeError, LookupError) as error:
            raise RegistryTrouble(
                "registry",
                f"the schema registry gave no answer that can be used ({type(error).__name__}); events wait",
            ) from None


def _refused(subject: str, status: int) -> RegistryTrouble:
    hint = _HINTS.get(status, "look at the registry's log")
    return RegistryTrouble(
        "registry", f"the schema registry answered {status} for {subject}: {hint}; events wait"
    )


_HINTS: Final = {
    401: "give a user and password in schema_registry_url",
    403: "allow this user to register schemas, or register them beforehand",
    409: "the subject holds a schema that is not compatible",
    422: "the registry does not take the schema",
}
