"""The gateway's settings: its own section of the file that it shares with the consumer, `kafka`, `log`, and part of
`delivery`.

In: the file's path and the environment. Out: `Settings`, frozen and checked, or one `SettingsError` that names every
problem. The consumer's sections are accepted unchecked (`flagpost_settings.section.SECTIONS`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints

from flagpost_publisher.gateway.key import EVERY_TYPE, PUBLIC_TYPES, Key, SentType
from flagpost_settings.clocks import DeliveryClocks
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
from flagpost_settings.problems import Finding, SettingsError, given_twice
from flagpost_settings.secrets import Secret, SecretForm, SecretListSource, SecretSource, list_source_of
from flagpost_settings.section import EMPTY_IF_NULL, MAX_COUNT, PortNumber, PositiveSeconds, Section, Text

WRITE_KEY: Final = SecretForm(
    re.compile(r"[\x21-\x39\x3b-\x7e]{12,}"),
    "should have 12 characters or more, of plain ASCII without spaces and colons",
)
"""Visible ASCII without a colon: what can be a user name of HTTP's Basic authentication. A shorter one could be
guessed.
"""

WEBHOOK_SECRET: Final = SecretForm(
    re.compile(r"[^\0\r\n\ufffd]{12,}"), "should have 12 characters or more, of UTF-8 text on one line"
)

KEY_NAME: Final = r"^[A-Za-z0-9._-]{1,64}$"
"""The form of keys' names in logs and metrics."""

EMPTY_HASHES: Final = frozenset(hashlib.sha256(text).hexdigest() for text in (b"", b"\n", b"\r\n"))
"""What `sha256sum` prints if the key is missing."""

SentTypes = Annotated[list[Annotated[SentType, Field(strict=False)]], Field(min_length=1)]

MAX_BODY_BYTES: Final = 1_000_000
"""JSON is parsed in one go: this much may block the loop for a tenth of a second, and take 30 MB meanwhile."""


def _network(value: object) -> object:
    try:
        return ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("it should be an address, or a network such as 10.0.0.0/8") from None


Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class KeySettings(Section):
    """One key, and what may be sent with it."""

    key: Secret | None = None
    key_file: Text | None = None
    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    types: SentTypes | None = None
    events_per_second: Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)] | None = None
    origins: list[Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+$")]] = Field(default=[])

    def known_as(self, name: str) -> Key:
        """The key's name and rights, as the gateway uses them."""
        everything = PUBLIC_TYPES if self.origins else EVERY_TYPE
        types = everything if self.types is None else frozenset(self.types)
        return Key(name, types, self.events_per_second, frozenset(map(str.lower, self.origins)))

    def source(self, name: str) -> SecretListSource | None:
        """Where the key is read from; during a change, the old key and the new one. None: only its hash is set."""
        return list_source_of(f"gateway.keys.{name}.key", self.key, self.key_file, WRITE_KEY)


class GatewaySettings(GatewayTopics, extra="forbid"):
    """Where the gateway listens, who may send, and how much at once."""

    host: Text = "0.0.0.0"  # noqa: S104 (services and scrapes come from outside the pod)
    port: PortNumber = 8081
    admin_port: PortNumber = 8082
    write_keys: list[Secret] | None = None
    write_keys_file: Text | None = None
    keys: dict[Annotated[str, StringConstraints(pattern=KEY_NAME)], KeySettings] = Field(default={})
    webhook_secret: Secret | None = None
    webhook_secret_file: Text | None = None
    webhook_max_age_seconds: PositiveSeconds = 86_400.0
    trusted_proxies: list[Network] = Field(default=[])
    max_body_bytes: Annotated[int, Field(gt=0, le=MAX_BODY_BYTES)] = 512_000

    @property
    def write_keys_source(self) -> SecretListSource | None:
        """Where the write keys without a name are read from, one a line; None: there are none."""
        lines = "\n".join(key.reveal() for key in self.write_keys or ())
        return list_source_of(
            "gateway.write_keys", Secret(lines) if lines else None, self.write_keys_file, WRITE_KEY
        )

    @property
    def key_sources(self) -> list[SecretListSource]:
        """Where all keys are read from whose hash is not given."""
        sources = [self.write_keys_source, *(key.source(name) for name, key in self.keys.items())]
        return [source for source in sources if source is not None]

    @property
    def known_keys(self) -> list[Key]:
        """The keys with a name."""
        return [key.known_as(name) for name, key in self.keys.items()]

    @property
    def webhook_secret_source(self) -> SecretListSource | None:
        """Where the secrets of Pendo's webhooks are read from, one a line; None: there are none."""
        return list_source_of(
            "gateway.webhook_secret", self.webhook_secret, self.webhook_secret_file, WEBHOOK_SECRET
        )


class Settings(Section):
    """All settings of the gateway."""

    gateway: Annotated[GatewaySettings, EMPTY_IF_NULL] = GatewaySettings()
    kafka: Annotated[KafkaSettings, EMPTY_IF_NULL] = KafkaSettings()
    delivery: Annotated[DeliveryClocks, EMPTY_IF_NULL] = DeliveryClocks()
    log: Annotated[LogSettings, EMPTY_IF_NULL] = LogSettings()


def load_settings(config_path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Args:
        config_path: the YAML file, if there is one.
        environ: the environment; its variables `FLAGPOST_<SECTION>__<KEY>` win over the file.

    Raises:
        SettingsError: one line for each problem.
    """
    return _LOADER.load(config_path, environ, _RULES)


def _missing(settings: Settings) -> Iterator[Finding]:
    yield from missing_in(settings.kafka)
    yield from wrong_files_in(settings.kafka)
    if settings.gateway.write_keys_source is None and not settings.gateway.keys:
        yield (
            ("gateway", "write_keys"),
            "is required (or gateway.write_keys_file, or gateway.keys): the keys that services send, as a list",
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
        if not WRITE_KEY.pattern.fullmatch(key.reveal()):
            yield ("gateway", "write_keys", number), f"a write key {WRITE_KEY.otherwise}"
    for name, named in gateway.keys.items():
        for key_name, wrong in _wrong_with(named):
            yield ("gateway", "keys", name, key_name), wrong
        if gateway.write_keys_source is not None and re.fullmatch(r"key-\d+", name):
            yield (
                ("gateway", "keys", name),
                "is also the name of one of gateway.write_keys; give it another name",
            )


def _wrong_with(key: KeySettings) -> Iterator[tuple[str, str]]:
    given = [name for name in ("key", "key_file", "key_sha256") if getattr(key, name) is not None]
    if len(given) != 1:
        yield "key", "set exactly one of key, key_file and key_sha256"
    if key.key is not None and not WRITE_KEY.pattern.fullmatch(key.key.reveal()):
        yield "key", f"a write key {WRITE_KEY.otherwise}"
    if key.key_sha256 is not None and key.key_sha256.lower() in EMPTY_HASHES:
        yield (
            "key_sha256",
            'is the SHA-256 of an empty text; make it of the key: printf %s "$KEY" | sha256sum',
        )
    if key.origins and not PUBLIC_TYPES.issuperset(key.types or ()):
        yield "types", "a key with origins is public and may send track and page only; remove the other types"


def _secrets(settings: Settings) -> Iterator[SecretSource | None]:
    yield from settings.kafka.secret_sources
    yield settings.gateway.webhook_secret_source
    hashed = any(key.key_sha256 is not None for key in settings.gateway.keys.values())
    if not hashed and not any(map(_can_be_read, settings.gateway.key_sources)):
        yield from settings.gateway.key_sources  # each says why


def _can_be_read(source: SecretSource) -> bool:
    try:
        source.current()
    except SettingsError:
        return False
    return True


_LOADER: Final = Loader(Settings)
_RULES: Final = Rules(contradictions=_contradictions, missing=_missing, secrets=_secrets)
