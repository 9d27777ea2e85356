"""Schema ids from a Confluent schema registry.

In: the registry's URL and the topic. Out: the id of each event class's schema, or RegistryTrouble; and of the ids,
what stands before each event's body. Blocks for network calls: for a thread that nobody waits for only.
"""

from __future__ import annotations

import base64
import json
import operator
import os
from dataclasses import replace
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    BaseHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from flagpost_publisher.errors import RegistryTrouble
from flagpost_schemas import EVENT_TYPES, confluent_header, schema_of, single_object_header
from flagpost_settings.outbound import Outbound
from flagpost_settings.problems import SettingsError
from flagpost_settings.tls_failures import tls_failure
from flagpost_settings.urls import shows_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flagpost_schemas import Event

USER_INFO_PROPERTY: Final = "schema.registry.basic.auth.user.info"
CA_PROPERTY: Final = "schema.registry.ssl.ca.location"
CERTIFICATE_PROPERTY: Final = "schema.registry.ssl.certificate.location"
KEY_PROPERTY: Final = "schema.registry.ssl.key.location"
INSECURE_PROPERTY: Final = "schema.registry.allow.insecure.http"
REGISTRY_PROPERTIES: Final = frozenset(
    {USER_INFO_PROPERTY, CA_PROPERTY, CERTIFICATE_PROPERTY, KEY_PROPERTY, INSECURE_PROPERTY}
)
"""Those of the user's properties that are the registry's, and none of librdkafka's."""
MAX_ANSWER_BYTES: Final = 1_048_576
"""More of an answer is not read: an id takes a fraction of it."""
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
    (`user:password`). `schema.registry.ssl.ca.location` is a file of trusted certificates,
    `schema.registry.ssl.certificate.location` and `schema.registry.ssl.key.location` are our own.
    """

    def __init__(self, url: str, properties: Mapping[str, Any], outbound: Outbound | None = None) -> None:
        """Makes no call yet. `outbound`: proxy and certificates, where settings give them."""
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self._headers = {"content-type": _CONTENT_TYPE, "accept": _CONTENT_TYPE}
        user_info = properties.get(USER_INFO_PROPERTY) or unquote(parts.netloc.rpartition("@")[0])
        if user_info:
            self._headers["authorization"] = _basic(user_info)
        given = Outbound("kafka.schema_registry") if outbound is None else outbound
        self._outbound = replace(
            given,
            ca_file=given.ca_file or properties.get(CA_PROPERTY),
            certificate_file=given.certificate_file or properties.get(CERTIFICATE_PROPERTY),
            key_file=given.key_file or properties.get(KEY_PROPERTY),
        )

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
            self._use_proxy(request)
            with self._opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
                return operator.index(json.loads(answer.read(MAX_ANSWER_BYTES))["id"])
        except HTTPError as error:
            error.close()
            raise
        except SettingsError as error:
            raise RegistryTrouble("registry", f"{error}; events wait") from None
        except (OSError, HTTPException, ValueError, TypeError, LookupError) as error:
            raise RegistryTrouble(
                "registry",
                f"the schema registry gave no answer that can be used ({_kind(error)}); events wait",
            ) from None

    def _opener(self) -> OpenerDirector:
        """What follows no redirect, and reads the certificates as they are now."""
        # urllib would take proxies from the environment by rules of its own.
        handlers: list[BaseHandler] = [ProxyHandler({}), _NoRedirects()]
        if self._url.startswith("https"):
            handlers.append(HTTPSHandler(context=self._outbound.tls()))
        return build_opener(*handlers)

    def _use_proxy(self, request: Request) -> None:
        proxy = self._outbound.proxy_to(self._url, os.environ)
        if proxy is None:
            return
        request.set_proxy(proxy.url.removeprefix("http://"), "http")
        if proxy.username is not None:
            request.add_unredirected_header(
                "Proxy-Authorization", _basic(f"{proxy.username}:{proxy.password}")
            )


def _kind(error: Exception) -> str:
    """What kind of error it is; urllib wraps those of TLS and of the network."""
    if (wrong := tls_failure(error)) is not None:
        return wrong
    reason = getattr(error, "reason", None)
    return type(reason if isinstance(reason, Exception) else error).__name__


class _NoRedirects(HTTPRedirectHandler):
    """Our password goes where it is meant to go, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def shows_password(url: str, properties: Mapping[str, Any]) -> bool:
    """Whether the registry's password would go over plain http, and nobody said that it may."""
    parts = urlsplit(url)
    has_password = parts.password is not None or bool(properties.get(USER_INFO_PROPERTY))
    allowed = str(properties.get(INSECURE_PROPERTY, "")).lower() == "true"
    return has_password and shows_secrets(parts) and not allowed


def _basic(user_info: str) -> str:
    return f"Basic {base64.b64encode(user_info.encode()).decode()}"


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
