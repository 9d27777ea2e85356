"""Schema ids from a Confluent schema registry.

In: the registry's URL and the topic. Out: the id of each event class's schema, or RegistryTrouble; and from the ids,
the header for each event's body. It blocks for network calls: use it only in a thread that nobody waits for.
"""

from __future__ import annotations

import json
import operator
import os
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flagpost_publisher.errors import RegistryTrouble
from flagpost_schemas import EVENT_TYPES, confluent_header, schema_of, single_object_header
from flagpost_settings.outbound import Outbound, basic
from flagpost_settings.problems import SettingsError
from flagpost_settings.tls_failures import tls_failure
from flagpost_settings.urls import shows_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    from _typeshed import WriteableBuffer

    from flagpost_schemas import Event

USER_INFO_PROPERTY: Final = "schema.registry.basic.auth.user.info"
CA_PROPERTY: Final = "schema.registry.ssl.ca.location"
CERTIFICATE_PROPERTY: Final = "schema.registry.ssl.certificate.location"
KEY_PROPERTY: Final = "schema.registry.ssl.key.location"
INSECURE_PROPERTY: Final = "schema.registry.allow.insecure.http"
REGISTRY_PROPERTIES: Final = frozenset(
    {USER_INFO_PROPERTY, CA_PROPERTY, CERTIFICATE_PROPERTY, KEY_PROPERTY, INSECURE_PROPERTY}
)
"""The user's properties that are for the registry, and not for librdkafka."""
MAX_ANSWER_BYTES: Final = 1_048_576
"""The rest of a longer answer is not read: an id takes a fraction of it."""
TIMEOUT_SECONDS: Final = 5.0
"""How long to wait for a connection, and for the next bytes."""
ANSWERS_SECONDS: Final = 30.0
"""How long all answers of one attempt may take together, however slowly their bytes come."""
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


def event_headers(ids: Mapping[type[Event], int] | None) -> dict[type[Event], bytes]:
    """The header for each event's body: with `ids`, Confluent's header; without, single-object encoding's."""
    if ids is None:
        return {each: single_object_header(schema_of(each).fingerprint) for each in EVENT_TYPES}
    return {each: confluent_header(ids[each]) for each in EVENT_TYPES}


class Registry:
    """A schema registry.

    `url` may contain `user:password@`; so may the property `schema.registry.basic.auth.user.info` (`user:password`).
    `schema.registry.ssl.ca.location` is a file of trusted certificates, `schema.registry.ssl.certificate.location`
    and `schema.registry.ssl.key.location` are our own.
    """

    def __init__(self, url: str, properties: Mapping[str, Any], outbound: Outbound | None = None) -> None:
        """Makes no request yet. `outbound`: proxy and certificates, if they come from settings."""
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self._headers = {"content-type": _CONTENT_TYPE, "accept": _CONTENT_TYPE}
        user_info = properties.get(USER_INFO_PROPERTY) or unquote(parts.netloc.rpartition("@")[0])
        if user_info:
            username, _, password = user_info.partition(":")
            self._headers["authorization"] = basic(username, password)
        given = Outbound("kafka.schema_registry") if outbound is None else outbound
        self._outbound = replace(
            given,
            ca_file=given.ca_file or properties.get(CA_PROPERTY),
            certificate_file=given.certificate_file or properties.get(CERTIFICATE_PROPERTY),
            key_file=given.key_file or properties.get(KEY_PROPERTY),
        )

    def ids_for(self, topic: str) -> dict[type[Event], int]:
        """The schema id of every event class; registers missing schemas; all over one connection.

        The subject is `<topic>-<record's full name>` (TopicRecordNameStrategy). Raises RegistryTrouble.
        """
        schemas = {event_type: schema_of(event_type) for event_type in EVENT_TYPES}
        try:
            with _Connection(self._url, self._outbound) as connection:
                return {
                    each: self._schema_id(connection, f"{topic}-{schema.full_name}", schema.text)
                    for each, schema in schemas.items()
                }
        except SettingsError as error:
            raise RegistryTrouble("registry", f"{error}; events wait") from None
        except (OSError, HTTPException, ValueError, TypeError, LookupError, RecursionError) as error:
            raise RegistryTrouble(
                "registry",
                f"the schema registry returned no usable answer ({_kind(error)}); events wait",
            ) from None

    def _schema_id(self, connection: _Connection, subject: str, schema: str) -> int:
        path = f"/subjects/{quote(subject, safe='')}"
        body = json.dumps({"schema": schema}).encode()
        status, answer = connection.post(path, body, self._headers)
        if status == HTTPStatus.NOT_FOUND:  # not registered yet
            status, answer = connection.post(f"{path}/versions", body, self._headers)
        if not 200 <= status < 300:
            raise _refused(subject, status)
        schema_id = operator.index(json.loads(answer)["id"])
        confluent_header(schema_id)  # raises ValueError for an impossible id
        return schema_id


class _Connection:
    """One connection for one request after the other; a context manager. It follows no redirects."""

    def __init__(self, url: str, outbound: Outbound) -> None:
        """Connects with the first request; the certificates are read now. Raises SettingsError."""
        until = monotonic() + ANSWERS_SECONDS
        to = urlsplit(url)
        proxy = outbound.proxy_to(url, os.environ)
        at = to if proxy is None else urlsplit(proxy.url)
        self._login = {} if proxy is None else proxy.headers
        self._tunnels = to.scheme == "https"
        self._base = to.path if proxy is None or self._tunnels else url
        self._http: HTTPConnection
        if self._tunnels:
            self._http = HTTPSConnection(
                at.hostname or "", at.port, timeout=TIMEOUT_SECONDS, context=outbound.tls()
            )
            if proxy is not None:
                self._http.set_tunnel(to.hostname or "", to.port, self._login)
        else:
            self._http = HTTPConnection(at.hostname or "", at.port, timeout=TIMEOUT_SECONDS)
        self._http.response_class = partial(_Answer, until)  # type: ignore[assignment] # called like the class

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and answer. Raises OSError, HTTPException."""
        own = {} if self._tunnels else self._login
        self._http.request("POST", self._base + path, body, {**headers, **own})
        answer = self._http.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES)


class _Answer(HTTPResponse):
    """An answer that is read until a time, monotonic seconds."""

    def __init__(self, until: float, connection: socket, *given: Any, **named: Any) -> None:  # noqa: ANN401
        super().__init__(connection, *given, **named)
        self.fp = BufferedReader(_Timely(self.fp.detach(), connection, until))


class _Timely(RawIOBase):
    """What a connection receives until a time: its own time-out begins again with each byte."""

    def __init__(self, received: RawIOBase, connection: socket, until: float) -> None:
        self._received = received
        self._connection = connection
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, TIMEOUT_SECONDS))
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


def _kind(error: Exception) -> str:
    """The kind of an error."""
    if (wrong := tls_failure(error)) is not None:
        return wrong
    return type(error).__name__


def shows_password(url: str, properties: Mapping[str, Any]) -> bool:
    """Whether the registry's password would be sent over plain http without permission."""
    parts = urlsplit(url)
    has_password = parts.password is not None or bool(properties.get(USER_INFO_PROPERTY))
    allowed = str(properties.get(INSECURE_PROPERTY, "")).lower() == "true"
    return has_password and shows_secrets(parts) and not allowed


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
