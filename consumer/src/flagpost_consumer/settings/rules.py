"""Rules that reach across keys, and what a command needs.

In: settings whose values are each possible by themselves. Out: the problems that remain.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from enum import Flag, auto
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from flagpost_consumer.settings.keys import KeyPath
from flagpost_consumer.settings.problems import SettingsError
from flagpost_consumer.settings.sections import KafkaSettings, PendoSettings, Settings

Finding = tuple[KeyPath, str]
"""A key, and what is wrong with it or what it should be."""

OWNED_PROPERTIES = {
    "bootstrap.servers": "set kafka.bootstrap_servers instead",
    "metadata.broker.list": "set kafka.bootstrap_servers instead",
    "group.id": "set kafka.group_id instead",
    "group.protocol": "set kafka.group_protocol instead",
    "session.timeout.ms": "set kafka.session_timeout_seconds instead",
    "group.*": "leave it out",
    "max.poll.interval.ms": "leave it out",
    "enable.auto.*": "leave it out: offsets are committed when their deliveries are settled",
    "auto.offset.reset": "leave it out: new groups start at the earliest offset",
    "partition.assignment.strategy": "set kafka.group_protocol instead",
    "isolation.level": "leave it out",
    "enable.idempotence": "leave it out",
    "acks": "leave it out: every write is acknowledged by all in-sync replicas",
    "request.required.acks": "leave it out: every write is acknowledged by all in-sync replicas",
    "partitioner": "leave it out: a visitor's partition must be the same from every client",
    "transactional.id": "leave it out",
    "*_cb": "leave it out: it takes a function",
    "logger": "leave it out: it takes an object",
    "default.topic.config": "give the topic's properties by themselves",
}
"""librdkafka's properties that Flagpost sets itself (globs, the first that fits), and what to do instead."""


HOST_NAME = re.compile(r"(?i)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


class Needs(Flag):
    """What a command cannot do without."""

    NOTHING = 0
    KAFKA = auto()
    """A cluster to connect to."""
    PENDO = auto()
    """The secrets, each readable."""
    WEBHOOK_TOPIC = auto()
    """The gateway's topic; without this need the gateway's section is not looked at."""


def missing(settings: Settings, needs: Needs) -> Iterator[Finding]:
    """What the command needs and nobody gave."""
    if Needs.KAFKA in needs and settings.kafka.bootstrap_servers is None:
        yield ("kafka", "bootstrap_servers"), "is required; give it as host:port,host:port"
    if Needs.PENDO in needs:
        yield from _missing_secrets(settings)


def _missing_secrets(settings: Settings) -> Iterator[Finding]:
    pendo = settings.pendo
    if pendo.track_secret_source is None:
        yield (
            ("pendo", "track_secret"),
            "is required (or pendo.track_secret_file): the Track Event shared secret of your application in Pendo",
        )
    if settings.decisions.visitor_metadata and pendo.integration_key_source is None:
        yield (
            ("pendo", "integration_key"),
            "is required (or pendo.integration_key_file); without one, set decisions.visitor_metadata to false",
        )


def unreadable(settings: Settings, needs: Needs) -> Iterator[SettingsError]:
    """The secret files that the command needs and cannot read."""
    sources = [settings.kafka.schema_registry.password_source, *settings.kafka.property_sources.values()]
    used = sources if Needs.KAFKA in needs else []
    if Needs.PENDO in needs:
        used = [*used, settings.pendo.track_secret_source, settings.pendo.integration_key_source]
    for source in used:
        try:
            if source is not None:
                source.current()
        except SettingsError as error:
            yield error


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Values that are possible by themselves and not together."""
    yield from _given_twice(settings)
    yield from _impossible_urls(settings.pendo)
    yield from _owned(settings.kafka)
    yield from _topics(settings)
    yield from _timeouts(settings)
    yield from _registry(settings.kafka)
    if _placeholders(settings.decisions.metadata_field) - {"flag_key"}:
        yield ("decisions", "metadata_field"), "the only placeholder it may hold is {flag_key}"


def _given_twice(settings: Settings) -> Iterator[Finding]:
    pendo, kafka = settings.pendo, settings.kafka
    if pendo.track_secret is not None and pendo.track_secret_file is not None:
        yield ("pendo", "track_secret_file"), _twice("pendo.track_secret")
    if pendo.integration_key is not None and pendo.integration_key_file is not None:
        yield ("pendo", "integration_key_file"), _twice("pendo.integration_key")
    if kafka.schema_registry.password is not None and kafka.schema_registry.password_file is not None:
        yield ("kafka", "schema_registry", "password_file"), _twice("kafka.schema_registry.password")
    for name in sorted(kafka.properties.keys() & kafka.properties_files.keys()):
        yield ("kafka", "properties_files", name), _twice(f"kafka.properties.{name}")


def _twice(key: str) -> str:
    return f"{key} is given as well; give one of the two"


def _impossible_urls(pendo: PendoSettings) -> Iterator[Finding]:
    for key, url in (("track_url", pendo.track_url), ("api_url", pendo.api_url)):
        wrong = None if url is None else _wrong_with_url(url, pendo)
        if wrong is not None:
            yield ("pendo", key), wrong


def _wrong_with_url(url: str, pendo: PendoSettings) -> str | None:
    parts = _url(url)
    if parts is None or any(c.isspace() for c in url):
        return "it should be an http or https URL such as https://app.pendo.io"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "it should hold no user name, password or fragment; keys have settings of their own"
    if _is_insecure(parts) and not pendo.allow_insecure_http:
        return "plain http shows the secret to the network; use https, or set pendo.allow_insecure_http"
    return None


def _url(text: str) -> SplitResult | None:
    """The parts of an http or https URL; None where it is none."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and _is_host(parts.hostname or "") else None


def _is_host(name: str) -> bool:
    """Whether it can be connected to; a name of other letters has a form in these, beginning with xn--."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return HOST_NAME.fullmatch(name) is not None
    return True


def _is_insecure(parts: SplitResult) -> bool:
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761


def _owned(kafka: KafkaSettings) -> Iterator[Finding]:
    given: dict[str, dict[str, str]] = {
        "properties": kafka.properties,
        "properties_files": kafka.properties_files,
    }
    for key, properties in given.items():
        for name in properties:
            instead = next((text for glob, text in OWNED_PROPERTIES.items() if fnmatchcase(name, glob)), None)
            if instead is not None:
                yield ("kafka", key, name), f"Flagpost sets this librdkafka property itself; {instead}"


def _topics(settings: Settings) -> Iterator[Finding]:
    kafka = settings.kafka
    topics: dict[KeyPath, str] = {
        ("kafka", "topic"): kafka.topic,
        ("kafka", "ledger_topic"): kafka.ledger_topic,
        ("kafka", "dead_letter_topic"): kafka.dead_letter_topic,
        ("gateway", "webhook_topic"): settings.gateway.webhook_topic,
    }
    users = Counter(topics.values())
    for key, name in topics.items():
        if users[name] > 1:
            yield key, "another topic has this name; give each a name of its own"


def _timeouts(settings: Settings) -> Iterator[Finding]:
    session = settings.kafka.session_timeout_seconds
    if settings.pendo.request_timeout_seconds >= session / 2:
        yield (
            ("pendo", "request_timeout_seconds"),
            f"it should be under half of kafka.session_timeout_seconds, which is {session:g}",
        )


def _registry(kafka: KafkaSettings) -> Iterator[Finding]:
    registry = kafka.schema_registry
    if registry.password_source is not None and registry.username is None:
        yield ("kafka", "schema_registry", "username"), "it is required with a password"
    wrong = None if registry.url is None else _wrong_with_registry_url(registry.url)
    if wrong is not None:
        yield ("kafka", "schema_registry", "url"), wrong


def _wrong_with_registry_url(url: str) -> str | None:
    parts = _url(url)
    if parts is None:
        return "it should be a URL such as http://registry:8081"
    if "@" in parts.netloc:
        return "it should hold no user name or password; use kafka.schema_registry.username and .password"
    return None


def _placeholders(template: str) -> set[str]:
    names = (part.partition("}")[0] for part in template.split("{")[1:])
    return set(names)
