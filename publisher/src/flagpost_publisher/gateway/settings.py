"""The gateway's settings: its own section of the file that it shares with the consumer, and `kafka` and `log`.

In: the file's path and the environment. Out: `Settings`, frozen and checked, or one `SettingsError` that names every
problem. The consumer's sections are accepted unchecked (`flagpost_settings.section.SECTIONS`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field

from flagpost_settings.kafka import (
    GatewayTopics,
    KafkaSettings,
    contradictions_in,
    missing_in,
    topics_of_one_name,
    wrong_files_in,
)
from flagpost_settings.load import Loader, Rules
from flagpost_settings.log_section import LogSettings
from flagpost_settings.problems import Finding, given_twice
from flagpost_settings.secrets import ANY_TEXT, Secret, SecretForm, SecretSource, source_of
from flagpost_settings.section import EMPTY_IF_NULL, PortNumber, PositiveSeconds, Section, Text

WRITE_KEY: Final = r"[\x21-\x39\x3b-\x7e]+"
"""Visible ASCII without a colon: what can be a user name of HTTP's Basic authentication."""

WRITE_KEYS: Final = SecretForm(
    re.compile(rf"(\r?\n)*{WRITE_KEY}((\r?\n)+{WRITE_KEY})*(\r?\n)*"),
    "holds a line that is no write key; give one key a line, of plain ASCII without spaces and colons",
)

MAX_BODY_BYTES: Final = 1_000_000
"""JSON is parsed in one go: this much may keep the loop for a tenth of a second, and take 30 MB meanwhile."""


def _network(value: object) -> object:
    try:
        return ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("it should be an address, or a network such as 10.0.0.0/8") from None


Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class GatewaySettings(GatewayTopics, extra="forbid"):
    """Where the gateway listens, whom it lets in, and how much at once."""

    host: Text = "0.0.0.0"  # noqa: S104 (services and scrapes come from outside the pod)
    port: PortNumber = 8081
    admin_port: PortNumber = 8082
    write_keys: list[Secret] | None = None
    write_keys_file: Text | None = None
    webhook_secret: Secret | None = None
    webhook_secret_file: Text | None = None
    webhook_max_age_seconds: PositiveSeconds = 86_400.0
    trusted_proxies: list[Network] = Field(default=[])
    max_body_bytes: Annotated[int, Field(gt=0, le=MAX_BODY_BYTES)] = 512_000

    @property
    def write_keys_source(self) -> SecretSource | None:
        """Where the write keys are read from, one a line; None: there are none."""
        lines = "\n".join(key.reveal() for key in self.write_keys or ())
        return source_of(
            "gateway.write_keys", Secret(lines) if lines else None, self.write_keys_file, WRITE_KEYS
        )

    @property
    def webhook_secret_source(self) -> SecretSource | None:
        """Where the secret of Pendo's webhooks is read from; None: there is none."""
        return source_of("gateway.webhook_secret", self.webhook_secret, self.webhook_secret_file, ANY_TEXT)


class Settings(Section):
    """Everything the gateway can be told."""

    gateway: Annotated[GatewaySettings, EMPTY_IF_NULL] = GatewaySettings()
    kafka: Annotated[KafkaSettings, EMPTY_IF_NULL] = KafkaSettings()
    log: Annotated[LogSettings, EMPTY_IF_NULL] = LogSettings()


def load_settings(config_path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Args:
        config_path: the YAML file, if there is one.
        environ: the environment; its variables `FLAGPOST_<SECTION>__<KEY>` win over the file.

    Raises:
        SettingsError: one line a problem.
    """
    return _LOADER.load(config_path, environ, _RULES)


def _missing(settings: Settings) -> Iterator[Finding]:
    yield from missing_in(settings.kafka)
    yield from wrong_files_in(settings.kafka)
    if settings.gateway.write_keys_source is None:
        yield (
            ("gateway", "write_keys"),
            "is required (or gateway.write_keys_file): the keys that services send, as a list",
        )


def _contradictions(settings: Settings) -> Iterator[Finding]:
    gateway = settings.gateway
    yield from contradictions_in(settings.kafka)
    yield from topics_of_one_name(settings.kafka, gateway.webhook_topic)
    yield from _wrong_keys(gateway)
    if gateway.write_keys is not None and gateway.write_keys_file is not None:
        yield ("gateway", "write_keys_file"), given_twice("gateway.write_keys")
    if gateway.webhook_secret is not None and gateway.webhook_secret_file is not None:
        yield ("gateway", "webhook_secret_file"), given_twice("gateway.webhook_secret")
    if gateway.admin_port == gateway.port != 0:
        yield ("gateway", "admin_port"), "it should be another port than gateway.port"


def _wrong_keys(gateway: GatewaySettings) -> Iterator[Finding]:
    for number, key in enumerate(gateway.write_keys or ()):
        if not re.fullmatch(WRITE_KEY, key.reveal()):
            yield (
                ("gateway", "write_keys", number),
                "a write key should be of plain ASCII without spaces and colons",
            )


def _secrets(settings: Settings) -> Iterator[SecretSource | None]:
    yield from settings.kafka.secret_sources
    yield settings.gateway.write_keys_source
    yield settings.gateway.webhook_secret_source


_LOADER: Final = Loader(Settings)
_RULES: Final = Rules(contradictions=_contradictions, missing=_missing, secrets=_secrets)
