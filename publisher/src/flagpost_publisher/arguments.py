"""The arguments of a Publisher, checked.

In: the constructor's arguments, or environment variables. Out: `Options`, or TypeError or ValueError that names the
argument (or variable), what was given and what is accepted. Values of properties are never shown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from flagpost_publisher.registry import INSECURE_PROPERTY, shows_password
from flagpost_schemas.edge_rules import DEFAULT_MAX_EVENT_BYTES
from flagpost_settings.owned_properties import instead_of
from flagpost_settings.topic_names import TOPIC_NAME
from flagpost_settings.variables import advice, misspelt

Attributes: TypeAlias = Mapping[str, Any]
IdSource: TypeAlias = str | Callable[[str, Attributes], str | None]
"""Where an id comes from: the name of a user attribute, or a callable `(user_id, attributes)`."""
ConsentSource: TypeAlias = Mapping[str, bool] | Callable[[str, Attributes], Mapping[str, bool] | None]

PUBLISHERS_PROPERTIES: Final = frozenset(
    {"delivery.report.only.error", "error_cb", "logger", "on_delivery", "queue.buffering.max.messages"}
)
"""Properties that the Publisher sets itself, besides those that all our programs set."""


PROPERTIES: Final = "FLAGPOST_KAFKA__PROPERTIES"
PROPERTIES_FILES: Final = "FLAGPOST_KAFKA__PROPERTIES_FILES"
MAX_EVENT_BYTES: Final = "FLAGPOST_KAFKA__MAX_EVENT_BYTES"
"""The variables that contain JSON; see `_VARIABLES` for the others."""


WAIT_SECONDS: Final = 10.0
"""How long `flush` and `close` wait by default."""
MAX_WAIT_SECONDS: Final = 1_000_000.0
"""Librdkafka counts milliseconds in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The constructor's arguments; see `Publisher`."""

    bootstrap_servers: str
    topic: str
    service: str | None
    environment: str | None
    schema_registry_url: str | None = field(repr=False)  # may hold a password
    visitor_id: IdSource | None
    account_id: IdSource | None
    attributes: Collection[str]
    dedupe_ttl_seconds: float
    dedupe_max_entries: int
    queue_max_messages: int
    consent: ConsentSource | None
    properties: Mapping[str, Any] = field(repr=False)  # may hold passwords
    on_error: Callable[[Exception], object] | None
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    impressions_topic: str | None = None


def checked(options: Options) -> Options:
    """Return `options`, with copies of what the caller might change later. Raises TypeError or ValueError."""
    for name, check in _CHECKS.items():
        check(name, getattr(options, name))
    if options.impressions_topic == options.topic:
        raise ValueError("impressions_topic is the events' topic; give another topic")
    url = options.schema_registry_url
    if url is not None and shows_password(url, options.properties):
        raise ValueError(
            "schema_registry_url is plain http, which shows the password to the network; use https, "
            f"or set the property {INSECURE_PROPERTY} to true"
        )
    consent = options.consent
    return replace(
        options,
        attributes=tuple(options.attributes),
        properties=dict(options.properties),
        consent=consent if consent is None or callable(consent) else dict(consent),
    )


def seconds_of(value: object) -> float:
    """How long a call may wait; the default for what is no number, because no call raises after the constructor."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return WAIT_SECONDS
    seconds = _float(value)
    return WAIT_SECONDS if math.isnan(seconds) else min(max(seconds, 0.0), MAX_WAIT_SECONDS)


def _float(value: float) -> float:
    """An int beyond all floats becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def arguments_from(environ: Mapping[str, str]) -> dict[str, Any]:
    """The constructor's arguments from `environ` (docs/contract.md#publisher).

    Raises ValueError, which names the variable.
    """
    for name, right in misspelt(environ, [*_VARIABLES, PROPERTIES, PROPERTIES_FILES, MAX_EVENT_BYTES]):
        raise ValueError(f"{name} {advice(right)}")
    if "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS" not in environ:
        raise ValueError(
            "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS is not set; give Kafka's addresses, such as kafka-1:9092,kafka-2:9092"
        )
    found = {argument: environ[variable] for variable, argument in _VARIABLES.items() if variable in environ}
    properties = _json_object(environ, PROPERTIES)
    files = _json_object(environ, PROPERTIES_FILES)
    return {
        **found,
        **_max_event_bytes(environ),
        "properties": {**properties, **{name: _secret(name, path) for name, path in files.items()}},
    }


_VARIABLES: Final = {
    "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "bootstrap_servers",
    "FLAGPOST_KAFKA__TOPIC": "topic",
    "FLAGPOST_KAFKA__IMPRESSIONS_TOPIC": "impressions_topic",
    "FLAGPOST_PUBLISHER__SERVICE": "service",
    "FLAGPOST_PUBLISHER__ENVIRONMENT": "environment",
    "FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL": "schema_registry_url",
}


def _max_event_bytes(environ: Mapping[str, str]) -> dict[str, int]:
    text = environ.get(MAX_EVENT_BYTES)
    if text is None:
        return {}
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{MAX_EVENT_BYTES} is not a number of bytes; give digits only, such as 65536")
    return {"max_event_bytes": int(text)}


def _json_object(environ: Mapping[str, str], variable: str) -> dict[str, Any]:
    try:
        value = json.loads(environ.get(variable, "{}"))
    except ValueError as error:
        raise ValueError(
            f"{variable} is not JSON ({error.args[0]}); give an object of property to value"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{variable} is JSON, but not an object; give property to value")  # noqa: TRY004 - of a variable
    return value


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{PROPERTIES_FILES}: the file of {name} cannot be read ({type(error).__name__}); "
            "give the path of a text file"
        ) from None


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is of type {type(value).__name__}; give a str")
    if not value.strip():
        raise ValueError(f"{name} is empty; give a text")
    if "\0" in value:
        raise ValueError(
            f"{name} holds a NUL character, and Kafka's client ignores what follows one; remove it"
        )


def _topic(name: str, value: object) -> None:
    _text(name, value)
    if not re.fullmatch(TOPIC_NAME, str(value)):
        raise ValueError(
            f"{name} is no name of a topic; give at most 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'"
        )


def _optional(check: Callable[[str, object], None]) -> Callable[[str, object], None]:
    def checked_if_given(name: str, value: object) -> None:
        if value is not None:
            check(name, value)

    return checked_if_given


def _url(name: str, value: object) -> None:
    if value is None:
        return
    _text(name, value)
    parts = urlsplit(str(value))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(
            f"{name} is not an http or https URL; give one such as https://registry.example:8081"
        )


def _id_source(name: str, value: object) -> None:
    if value is None or callable(value):
        return
    if not isinstance(value, str):
        raise TypeError(
            f"{name} is of type {type(value).__name__}; give an attribute's name or a callable (user_id, attributes)"
        )
    _text(name, value)


def _names(name: str, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise TypeError(f"{name} is of type {type(value).__name__}; give a list of attribute names")
    for member in value:
        _text(f"a member of {name}", member)


def _not_negative(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is of type {type(value).__name__}; give seconds as a number")
    if not 0 <= _float(value) < math.inf:
        raise ValueError(f"{name} is {_float(value):g}; give seconds, 0 or more")


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is of type {type(value).__name__}; give an int")
    if not 1 <= value < 2**31:
        raise ValueError(f"{name} is {_float(value):.0f}; give 1 to 2147483647")


def _consent(name: str, value: object) -> None:
    if value is None or callable(value):
        return
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} is of type {type(value).__name__}; give a map of category to bool, or a callable "
            "(user_id, attributes) that returns one"
        )
    for category, granted in value.items():
        _text(f"a category of {name}", category)
        if not isinstance(granted, bool):
            raise TypeError(f"{name}[{category!r}] is of type {type(granted).__name__}; give a bool")


def _properties(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is of type {type(value).__name__}; give a dict of librdkafka properties")
    for key in value:
        _text(f"a name in {name}", key)
        if key in PUBLISHERS_PROPERTIES or instead_of(key) is not None:
            raise ValueError(f"{name}: {key} is set by Flagpost; leave it out{_INSTEAD.get(key, '')}")
        if callable(value[key]) and key != _OWN_THREADS:
            raise ValueError(
                f"{name}: {key} is a callable, which decide() would have to wait for; leave it out"
            )
        if isinstance(value[key], str) and value[key]:
            _text(f"the value of {key} in {name}", value[key])


_OWN_THREADS: Final = "oauth_cb"
"""librdkafka calls it in a thread of its own; all other callables are called by whichever thread polls."""


_INSTEAD: Final = {
    "bootstrap.servers": " and give bootstrap_servers",
    "metadata.broker.list": " and give bootstrap_servers",
    "queue.buffering.max.messages": " and give queue_max_messages",
    "error_cb": " and give on_error",
    "on_delivery": " and give on_error",
}


def _callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} is of type {type(value).__name__}; give a callable that takes an exception")


_CHECKS: Final[Mapping[str, Callable[[str, object], None]]] = {
    "bootstrap_servers": _text,
    "topic": _topic,
    "service": _optional(_text),
    "environment": _optional(_text),
    "schema_registry_url": _url,
    "visitor_id": _id_source,
    "account_id": _id_source,
    "attributes": _names,
    "dedupe_ttl_seconds": _not_negative,
    "dedupe_max_entries": _positive,
    "queue_max_messages": _positive,
    "consent": _consent,
    "properties": _properties,
    "on_error": _callable,
    "max_event_bytes": _positive,
    "impressions_topic": _optional(_topic),
}
