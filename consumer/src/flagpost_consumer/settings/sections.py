"""The settings and their defaults: one frozen model for each section of the file (CONTRACT section 5).

In: a tree of plain values. Out: `Settings`. The sections that the engine reads are in `core.policy`; rules that
reach across keys are in `rules`; nothing here reads a file or the environment.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, StringConstraints

from flagpost_consumer.core.policy import (
    ConsentSettings,
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    MappingSettings,
    MetadataSettings,
    PositiveSeconds,
    Section,
)
from flagpost_consumer.settings.secrets import ANY_TEXT, HEADER_TEXT, Secret, SecretSource

Text = Annotated[str, StringConstraints(min_length=1)]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
"""What Kafka accepts as a topic's name."""
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
"""A token of RFC 9110."""


class Region(StrEnum):
    """Where a Pendo subscription lives."""

    US = "us"
    US1 = "us1"
    EU = "eu"
    JP = "jp"
    AU = "au"


class PendoUrls(NamedTuple):
    """Where requests go."""

    track: str
    api: str


REGION_URLS = {
    Region.US: PendoUrls("https://data.pendo.io/data/track", "https://app.pendo.io"),
    Region.US1: PendoUrls("https://us1.data.pendo.io/data/track", "https://us1.app.pendo.io"),
    Region.EU: PendoUrls("https://data.eu.pendo.io/data/track", "https://app.eu.pendo.io"),
    Region.JP: PendoUrls("https://data.jpn.pendo.io/data/track", "https://app.jpn.pendo.io"),
    Region.AU: PendoUrls("https://data.au.pendo.io/data/track", "https://app.au.pendo.io"),
}
"""CONTRACT section 4, after Pendo's list of regional endpoints."""


class GroupProtocol(StrEnum):
    """How the members of the consumer group share partitions."""

    CLASSIC = "classic"
    CONSUMER = "consumer"


class LogLevel(StrEnum):
    """The least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """What a log line looks like."""

    JSON = "json"
    CONSOLE = "console"


def _librdkafka_value(value: object) -> str:
    """A property as librdkafka takes it; booleans are `true` and `false` there."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("a property's value should be a text, a number, true or false")


PropertyValue = Annotated[str, BeforeValidator(_librdkafka_value)]


def _empty_if_null(value: object) -> object:
    """A section whose keys are all commented out is null in YAML."""
    return {} if value is None else value


EMPTY_IF_NULL = BeforeValidator(_empty_if_null)


class SchemaRegistrySettings(Section):
    """The registry that resolves the schema ids of Confluent's wire format."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")] | None = None
    username: Text | None = None
    password: Secret | None = None
    password_file: Text | None = None

    @property
    def password_source(self) -> SecretSource | None:
        """Where the password is read from; None: there is none."""
        return _source("kafka.schema_registry.password", self.password, self.password_file, ANY_TEXT)


class KafkaSettings(Section):
    """The cluster, the topics, and the membership of the group."""

    bootstrap_servers: Text | None = None
    group_id: Text = "flagpost"
    topic: TopicName = "flagpost.events"
    ledger_topic: TopicName = "flagpost.ledger"
    dead_letter_topic: TopicName = "flagpost.dead-letters"
    properties: dict[Text, PropertyValue] = Field(default={}, repr=False)
    properties_files: dict[Text, Text] = Field(default={})
    group_protocol: Annotated[GroupProtocol, Field(strict=False)] = GroupProtocol.CLASSIC
    session_timeout_seconds: Annotated[PositiveSeconds, Field(le=3600)] = 45.0
    schema_registry: Annotated[SchemaRegistrySettings, EMPTY_IF_NULL] = SchemaRegistrySettings()

    def client_properties(self) -> dict[str, str]:
        """What every librdkafka client of ours is made with; the files are read now.

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


class PendoSettings(EndpointLimits):
    """Where and as whom we talk to Pendo, and how much at once."""

    region: Annotated[Region, Field(strict=False)] = Region.US
    track_url: Text | None = None
    api_url: Text | None = None
    allow_insecure_http: bool = False
    track_secret: Secret | None = None
    track_secret_file: Text | None = None
    integration_key: Secret | None = None
    integration_key_file: Text | None = None
    track_secret_header: HeaderName = "x-pendo-integration-key"  # noqa: S105 (a name)

    @property
    def urls(self) -> PendoUrls:
        """The region's, unless given outright; the API's without a slash at the end."""
        region = REGION_URLS[self.region]
        return PendoUrls(self.track_url or region.track, (self.api_url or region.api).rstrip("/"))

    @property
    def track_secret_source(self) -> SecretSource | None:
        """Where the secret of track events is read from; None: there is none."""
        return _source("pendo.track_secret", self.track_secret, self.track_secret_file, HEADER_TEXT)

    @property
    def integration_key_source(self) -> SecretSource | None:
        """Where the key of Pendo's API is read from; None: there is none."""
        return _source("pendo.integration_key", self.integration_key, self.integration_key_file, HEADER_TEXT)


class GatewayTopics(Section, extra="ignore"):
    """The one key of the gateway's section that concerns others: the topic that `topics create` makes."""

    webhook_topic: TopicName = "flagpost.pendo-webhooks"


class AdminSettings(Section):
    """Where probes, metrics and status are served."""

    host: Text = "0.0.0.0"  # noqa: S104 (probes and scrapes come from outside the pod)
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080


class MetricsSettings(Section):
    """Which flags may appear as labels."""

    flags: list[str] = Field(default=[])


class LogSettings(Section):
    """How much is logged, and in which form."""

    level: Annotated[LogLevel, Field(strict=False)] = LogLevel.INFO
    format: Annotated[LogFormat, Field(strict=False)] | None = None
    """None: JSON, or console on a terminal."""


class Settings(Section):
    """Everything the consumer can be told."""

    kafka: Annotated[KafkaSettings, EMPTY_IF_NULL] = KafkaSettings()
    pendo: Annotated[PendoSettings, EMPTY_IF_NULL] = PendoSettings()
    delivery: Annotated[DeliverySettings, EMPTY_IF_NULL] = DeliverySettings()
    dedupe: Annotated[DedupeSettings, EMPTY_IF_NULL] = DedupeSettings()
    decisions: Annotated[DecisionsSettings, EMPTY_IF_NULL] = DecisionsSettings()
    metadata: Annotated[MetadataSettings, EMPTY_IF_NULL] = MetadataSettings()
    mapping: Annotated[MappingSettings, EMPTY_IF_NULL] = MappingSettings()
    consent: Annotated[ConsentSettings, EMPTY_IF_NULL] = ConsentSettings()
    admin: Annotated[AdminSettings, EMPTY_IF_NULL] = AdminSettings()
    metrics: Annotated[MetricsSettings, EMPTY_IF_NULL] = MetricsSettings()
    log: Annotated[LogSettings, EMPTY_IF_NULL] = LogSettings()
    gateway: Annotated[GatewayTopics, EMPTY_IF_NULL] = GatewayTopics()


def _source(
    key: str, value: Secret | None, path: str | None, accepted: re.Pattern[str]
) -> SecretSource | None:
    if value is not None:
        return SecretSource(key, value, accepted)
    return None if path is None else SecretSource(f"{key}_file", Path(path), accepted)
