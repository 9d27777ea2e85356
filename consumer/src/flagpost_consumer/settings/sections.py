"""The settings and their defaults: one frozen model for each section of the file (docs/contract.md#settings).

In: a tree of plain values. Out: `Settings`. The sections that the engine reads are in `core.policy`, those that other
programs read too in `flagpost_settings`; rules that involve several keys are in `rules`; nothing here reads a file or
the environment.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints

from flagpost_consumer.core.policy import (
    ConsentSettings,
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    MappingSettings,
    MetadataSettings,
    SelectSettings,
)
from flagpost_settings.kafka import GatewayTopics, KafkaSettings
from flagpost_settings.log_section import LogSettings
from flagpost_settings.outbound import Outbound
from flagpost_settings.secrets import HEADER_TEXT, LONG_TEXT, Secret, SecretForm, SecretSource, source_of
from flagpost_settings.section import EMPTY_IF_NULL, PortNumber, PositiveSeconds, Section, Text

HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
"""A token of RFC 9110."""

HOST_NAME = r"^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?$"
CONSUMER_URL = r"^http://[a-zA-Z0-9_.-]{1,253}(:[0-9]{1,5})?$"
WEB_TOKEN = SecretForm(
    re.compile(r"[\x21-\x39\x3b-\x7e]{16,}"),
    "should have 16 characters or more, of plain ASCII without spaces and colons; make one: openssl rand -hex 16",
)
"""A shorter token could be guessed; a browser sends it as the password of HTTP's Basic authentication."""


class Region(StrEnum):
    """The region of a Pendo subscription, with its URLs (Pendo's list of regional endpoints)."""

    track_url: str
    """Where track events go."""
    api_url: str
    """Where metadata and queries go."""

    def __new__(cls, value: str, track_url: str, api_url: str) -> Self:
        """A member: its word, and its URLs."""
        region = str.__new__(cls, value)
        region._value_ = value
        region.track_url = track_url
        region.api_url = api_url
        return region

    US = "us", "https://data.pendo.io/data/track", "https://app.pendo.io"
    US1 = "us1", "https://us1.data.pendo.io/data/track", "https://us1.app.pendo.io"
    EU = "eu", "https://data.eu.pendo.io/data/track", "https://app.eu.pendo.io"
    JP = "jp", "https://data.jpn.pendo.io/data/track", "https://app.jpn.pendo.io"
    AU = "au", "https://data.au.pendo.io/data/track", "https://app.au.pendo.io"


class PendoUrls(NamedTuple):
    """The URLs of Pendo's APIs."""

    track: str
    api: str


class PendoSettings(EndpointLimits):
    """Where Pendo is, our credentials, and how many requests to make at once."""

    region: Annotated[Region, Field(strict=False)] = Region.US
    track_url: Text | None = None
    api_url: Text | None = None
    allow_insecure_http: bool = False
    track_secret: Secret | None = None
    track_secret_file: Text | None = None
    integration_key: Secret | None = None
    integration_key_file: Text | None = None
    track_secret_header: HeaderName = "x-pendo-integration-key"  # noqa: S105 (a name)
    proxy: Secret | None = None
    """It may hold a password."""
    ca_file: Text | None = None

    @property
    def urls(self) -> PendoUrls:
        """The region's URLs, unless they are set; the API's without a slash at the end."""
        region = self.region
        return PendoUrls(self.track_url or region.track_url, (self.api_url or region.api_url).rstrip("/"))

    @property
    def outbound(self) -> Outbound:
        """The proxy and the certificates for requests to Pendo."""
        return Outbound("pendo", None if self.proxy is None else self.proxy.reveal(), self.ca_file)

    @property
    def track_secret_source(self) -> SecretSource | None:
        """Where the secret of track events is read from; None: there is none."""
        return source_of("pendo.track_secret", self.track_secret, self.track_secret_file, HEADER_TEXT)

    @property
    def integration_key_source(self) -> SecretSource | None:
        """Where the key of Pendo's API is read from; None: there is none."""
        return source_of(
            "pendo.integration_key", self.integration_key, self.integration_key_file, HEADER_TEXT
        )


class AdminSettings(Section):
    """Where probes, metrics and status are served."""

    host: Text = "0.0.0.0"  # noqa: S104 (probes and scrapes come from outside the pod)
    port: PortNumber = 8080


class WebSettings(Section):
    """The page for people: where it is served, to whom, and how much memory it may use."""

    host: Text = "127.0.0.1"
    port: PortNumber = 8084
    hosts: list[Annotated[str, StringConstraints(pattern=HOST_NAME)]] = Field(default=[])
    """Names under which browsers reach the page, besides localhost and addresses."""
    token: Secret | None = None
    token_file: Text | None = None
    show_ids: bool = False
    consumers: list[Annotated[str, StringConstraints(pattern=CONSUMER_URL)]] = Field(default=[])
    window_seconds: PositiveSeconds = 604_800.0
    max_bytes: Annotated[int, Field(ge=33_554_432, le=68_719_476_736)] = 536_870_912

    @property
    def token_source(self) -> SecretSource | None:
        """Where the shared token is read from; None: no token is required."""
        return source_of("web.token", self.token, self.token_file, WEB_TOKEN)


class LedgerIdsForm(StrEnum):
    """How the ledger writes visitor and account ids."""

    PLAIN = "plain"
    KEYED_HASH = "keyed_hash"


class PrivacySettings(Section):
    """What is stored about people."""

    ledger_ids: Annotated[LedgerIdsForm, Field(strict=False)] = LedgerIdsForm.PLAIN
    key_file: Text | None = None

    @property
    def key_source(self) -> SecretSource | None:
        """Where the key of `keyed_hash` is read from; None: ids are written as they are."""
        if self.ledger_ids is LedgerIdsForm.PLAIN or self.key_file is None:
            return None
        return SecretSource("privacy.key_file", Path(self.key_file), LONG_TEXT)


Split = Annotated[dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=2)]
"""Variations and their shares; only the proportions count."""


class MetricsSettings(Section):
    """Which flags may appear as labels, and how their visitors should be split."""

    flags: list[str] = Field(default=[])
    splits: dict[str, Split] = Field(default={})


class Settings(Section):
    """All settings of the consumer."""

    kafka: Annotated[KafkaSettings, EMPTY_IF_NULL] = KafkaSettings()
    pendo: Annotated[PendoSettings, EMPTY_IF_NULL] = PendoSettings()
    delivery: Annotated[DeliverySettings, EMPTY_IF_NULL] = DeliverySettings()
    dedupe: Annotated[DedupeSettings, EMPTY_IF_NULL] = DedupeSettings()
    select: Annotated[SelectSettings, EMPTY_IF_NULL] = SelectSettings()
    decisions: Annotated[DecisionsSettings, EMPTY_IF_NULL] = DecisionsSettings()
    metadata: Annotated[MetadataSettings, EMPTY_IF_NULL] = MetadataSettings()
    mapping: Annotated[MappingSettings, EMPTY_IF_NULL] = MappingSettings()
    consent: Annotated[ConsentSettings, EMPTY_IF_NULL] = ConsentSettings()
    privacy: Annotated[PrivacySettings, EMPTY_IF_NULL] = PrivacySettings()
    admin: Annotated[AdminSettings, EMPTY_IF_NULL] = AdminSettings()
    metrics: Annotated[MetricsSettings, EMPTY_IF_NULL] = MetricsSettings()
    log: Annotated[LogSettings, EMPTY_IF_NULL] = LogSettings()
    web: Annotated[WebSettings, EMPTY_IF_NULL] = WebSettings()
    gateway: Annotated[GatewayTopics, EMPTY_IF_NULL] = GatewayTopics()
