"""The section `kafka`, which every program reads, and its contradictions.

In: plain values. Out: `KafkaSettings`, librdkafka's properties, and findings about contradictions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from flagpost_settings.outbound import Outbound
from flagpost_settings.owned_properties import instead_of
from flagpost_settings.problems import Finding, KeyPath, given_twice
from flagpost_settings.secrets import ANY_TEXT, Secret, SecretSource, source_of
from flagpost_settings.section import EMPTY_IF_NULL, PositiveInt, PositiveSeconds, Section, Text, TopicName
from flagpost_settings.urls import http_url, shows_secrets


class GroupProtocol(StrEnum):
    """How the members of the consumer group share partitions."""

    CLASSIC = "classic"
    CONSUMER = "consumer"


def _librdkafka_value(value: object) -> str:
    """A property in librdkafka's form; booleans are `true` and `false` there."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and "\0" in value:
        raise ValueError(
            "a property's value should contain no NUL character: librdkafka ignores what follows one"
        )
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("a property's value should be a text, a number, true or false")


PropertyValue = Annotated[
    str, BeforeValidator(_librdkafka_value, json_schema_input_type=str | int | float | bool)
]


_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.-]+)?\]|[0-9A-Za-z._-]+)"
_PORT: Final = "0*(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_BROKER: Final = rf"[ \t]*(?:(?i:plaintext|ssl|sasl_plaintext|sasl_ssl)://)?{_HOST}(?::{_PORT})?[ \t]*"
BROKERS: Final = f"{_BROKER}(?:,{_BROKER})*"
"""Addresses of brokers, as librdkafka understands them; it ignores others. The chart has the same rule."""


def _brokers(text: str) -> str:
    if not re.fullmatch(BROKERS, text):
        raise ValueError("it should be host:port, or several with commas: host:port,host:port")
    return text


BrokerAddresses = Annotated[
    str, AfterValidator(_brokers), WithJsonSchema({"type": "string", "pattern": f"^{BROKERS}$"})
]


class SchemaRegistrySettings(Section):
    """The registry that resolves the schema ids of Confluent's wire format."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")] | None = None
    username: Text | None = None
    password: Secret | None = None
    password_file: Text | None = None
    unknown_seconds: Annotated[PositiveSeconds, Field(le=3600)] = 60.0
    proxy: Secret | None = None
    """It may hold a password."""
    ca_file: Text | None = None
    certificate_file: Text | None = None
    key_file: Text | None = None
    allow_insecure_http: bool = False

    @property
    def outbound(self) -> Outbound:
        """The proxy and the certificates for requests to the registry."""
        proxy = None if self.proxy is None else self.proxy.reveal()
        section = "kafka.schema_registry"
        return Outbound(section, proxy, self.ca_file, self.certificate_file, self.key_file)

    @property
    def password_source(self) -> SecretSource | None:
        """Where the password is read from; None: there is none."""
        return source_of("kafka.schema_registry.password", self.password, self.password_file, ANY_TEXT)


class KafkaSettings(Section):
    """The cluster, the topics, and the membership of the consumer group."""

    bootstrap_servers: BrokerAddresses | None = None
    group_id: Text = "flagpost"
    topic: TopicName = "flagpost.events"
    ledger_topic: TopicName = "flagpost.ledger"
    dead_letter_topic: TopicName = "flagpost.dead-letters"
    suppressions_topic: TopicName = "flagpost.suppressions"
    impressions_topic: TopicName | None = None
    properties: dict[Text, PropertyValue] = Field(default={}, repr=False)
    properties_files: dict[Text, Text] = Field(default={})
    group_protocol: Annotated[GroupProtocol, Field(strict=False)] = GroupProtocol.CLASSIC
    session_timeout_seconds: Annotated[PositiveSeconds, Field(le=3600)] = 45.0
    max_event_bytes: PositiveInt = 65536
    schema_registry: Annotated[SchemaRegistrySettings, EMPTY_IF_NULL] = SchemaRegistrySettings()

    def client_properties(self) -> dict[str, str]:
        """The properties of all our librdkafka clients; the files are read now.

        Raises:
            SettingsError: a file of `kafka.properties_files` cannot be read or is empty.
        """
        read = {name: source.current() for name, source in self.property_sources.items()}
        return {**self.properties, **read, "bootstrap.servers": self.bootstrap_servers or ""}

    @property
    def property_sources(self) -> dict[str, SecretSource]:
        """The properties that are read from files, by name."""
        return {
            name: SecretSource(f"kafka.properties_files.{name}", Path(path))
            for name, path in self.properties_files.items()
        }

    @property
    def secret_sources(self) -> list[SecretSource | None]:
        """Every secret of the section; None stands for a missing one."""
        return [self.schema_registry.password_source, *self.property_sources.values()]


class GatewayTopics(Section, extra="ignore"):
    """The one key of the gateway's section that others need: the topic that `topics create` creates."""

    webhook_topic: TopicName = "flagpost.pendo-webhooks"


TAKES_CODE: Final = {
    "*_cb": "its value must be a function",
    "logger": "its value must be an object",
    "default.topic.config": "set each of the topic's properties by its own name",
}
"""Properties whose values cannot be text."""


def missing_in(kafka: KafkaSettings) -> Iterator[Finding]:
    """Missing keys that a program needs to connect to Kafka."""
    if kafka.bootstrap_servers is None:
        yield ("kafka", "bootstrap_servers"), "is required; give it as host:port,host:port"


def contradictions_in(kafka: KafkaSettings) -> Iterator[Finding]:
    """Values of the section that contradict one another, and properties that may not be set."""
    registry = kafka.schema_registry
    if registry.password is not None and registry.password_file is not None:
        yield ("kafka", "schema_registry", "password_file"), given_twice("kafka.schema_registry.password")
    for name in sorted(kafka.properties.keys() & kafka.properties_files.keys()):
        yield ("kafka", "properties_files", name), given_twice(f"kafka.properties.{name}")
    yield from _not_to_be_given(kafka)
    yield from _registry(registry)


def topics_of_one_name(kafka: KafkaSettings, webhook_topic: str) -> Iterator[Finding]:
    """Topics with the same name."""
    topics: dict[KeyPath, str] = {
        ("kafka", "topic"): kafka.topic,
        ("kafka", "ledger_topic"): kafka.ledger_topic,
        ("kafka", "dead_letter_topic"): kafka.dead_letter_topic,
        ("kafka", "suppressions_topic"): kafka.suppressions_topic,
        ("gateway", "webhook_topic"): webhook_topic,
    }
    if kafka.impressions_topic is not None:
        topics["kafka", "impressions_topic"] = kafka.impressions_topic
    users = Counter(topics.values())
    for key, name in topics.items():
        if users[name] > 1:
            yield key, "another topic setting has the same name; give each topic its own name"


def _not_to_be_given(kafka: KafkaSettings) -> Iterator[Finding]:
    given = {"properties": kafka.properties, "properties_files": kafka.properties_files}
    for key, properties in given.items():
        for name in properties:
            path = ("kafka", key, name)
            if (instead := instead_of(name)) is not None:
                yield path, f"Flagpost sets this librdkafka property itself; {instead}"
            elif (why := instead_of(name, TAKES_CODE)) is not None:
                yield path, f"leave this librdkafka property out: {why}"


def wrong_files_in(kafka: KafkaSettings) -> Iterator[Finding]:
    """Certificate files that a program with a registry cannot use."""
    if kafka.schema_registry.url is not None:
        for key, text in kafka.schema_registry.outbound.wrong_files():
            yield ("kafka", "schema_registry", key), text


def _registry(registry: SchemaRegistrySettings) -> Iterator[Finding]:
    if registry.password_source is not None and registry.username is None:
        yield ("kafka", "schema_registry", "username"), "it is required with a password"
    wrong = None if registry.url is None else _wrong_with(registry.url, registry)
    if wrong is not None:
        yield ("kafka", "schema_registry", "url"), wrong
    if (wrong := registry.outbound.wrong_proxy()) is not None:
        yield ("kafka", "schema_registry", "proxy"), wrong
    if registry.key_file is not None and registry.certificate_file is None:
        yield ("kafka", "schema_registry", "certificate_file"), "it is required with a key"


def _wrong_with(url: str, registry: SchemaRegistrySettings) -> str | None:
    parts = http_url(url)
    if parts is None:
        return "it should be a URL such as http://registry:8081"
    if "@" in parts.netloc:
        return "it should contain no user name or password; use kafka.schema_registry.username and .password"
    if shows_secrets(parts) and registry.password_source is not None and not registry.allow_insecure_http:
        return (
            "plain http shows the password to the network; use https, "
            "or set kafka.schema_registry.allow_insecure_http"
        )
    return None
