"""The consumer's rules that involve several keys, and what a command needs.

In: settings whose values are each valid by themselves. Out: the problems that remain. The rules of the `kafka`
section are in `flagpost_settings.kafka`, for all programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Flag, auto

from flagpost_consumer.settings.sections import LedgerIdsForm, PendoSettings, Settings
from flagpost_settings.kafka import contradictions_in, missing_in, topics_of_one_name, wrong_files_in
from flagpost_settings.load import Rules
from flagpost_settings.problems import Finding, given_twice
from flagpost_settings.secrets import SecretSource
from flagpost_settings.urls import http_url, shows_secrets


class Needs(Flag):
    """What a command needs."""

    NOTHING = 0
    KAFKA = auto()
    """A cluster to connect to."""
    PENDO = auto()
    """The secrets, each of which must be readable."""
    WEB = auto()
    """The page's token: if there is one, it must be readable."""
    WEBHOOK_TOPIC = auto()
    """The gateway's topic; without this need the gateway's section is not read."""


def rules_for(needs: Needs) -> Rules[Settings]:
    """The rules for the settings of a command with these needs."""
    return Rules(
        contradictions=_contradictions,
        missing=lambda settings: _missing(settings, needs),
        secrets=lambda settings: _secrets(settings, needs),
    )


def _missing(settings: Settings, needs: Needs) -> Iterator[Finding]:
    if Needs.KAFKA in needs:
        yield from missing_in(settings.kafka)
        yield from wrong_files_in(settings.kafka)
    if Needs.PENDO in needs:
        yield from _missing_secrets(settings)
        for key, text in settings.pendo.outbound.wrong_files():
            yield ("pendo", key), text


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


def _secrets(settings: Settings, needs: Needs) -> Iterator[SecretSource | None]:
    if Needs.KAFKA in needs:
        yield from settings.kafka.secret_sources
        yield settings.privacy.key_source
    if Needs.PENDO in needs:
        yield settings.pendo.track_secret_source
        yield settings.pendo.integration_key_source
    if Needs.WEB in needs:
        yield settings.web.token_source


def _contradictions(settings: Settings) -> Iterator[Finding]:
    yield from _given_twice(settings.pendo)
    yield from _impossible_urls(settings.pendo)
    if settings.web.token is not None and settings.web.token_file is not None:
        yield ("web", "token_file"), given_twice("web.token")
    yield from contradictions_in(settings.kafka)
    yield from topics_of_one_name(settings.kafka, settings.gateway.webhook_topic)
    yield from _timeouts(settings)
    if settings.privacy.ledger_ids is LedgerIdsForm.KEYED_HASH and settings.privacy.key_file is None:
        yield ("privacy", "key_file"), "is required with keyed_hash: a file with 32 characters or more"
    if _placeholders(settings.decisions.metadata_field) - {"flag_key"}:
        yield ("decisions", "metadata_field"), "the only placeholder that it may contain is {flag_key}"


def _given_twice(pendo: PendoSettings) -> Iterator[Finding]:
    if pendo.track_secret is not None and pendo.track_secret_file is not None:
        yield ("pendo", "track_secret_file"), given_twice("pendo.track_secret")
    if pendo.integration_key is not None and pendo.integration_key_file is not None:
        yield ("pendo", "integration_key_file"), given_twice("pendo.integration_key")


def _impossible_urls(pendo: PendoSettings) -> Iterator[Finding]:
    for key, url in (("track_url", pendo.track_url), ("api_url", pendo.api_url)):
        wrong = None if url is None else _wrong_with_url(url, pendo)
        if wrong is not None:
            yield ("pendo", key), wrong
    if (wrong := pendo.outbound.wrong_proxy()) is not None:
        yield ("pendo", "proxy"), wrong


def _wrong_with_url(url: str, pendo: PendoSettings) -> str | None:
    parts = http_url(url)
    if parts is None or any(c.isspace() for c in url):
        return "it should be an http or https URL such as https://app.pendo.io"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "it should contain no user name, password or fragment; keys have their own settings"
    if shows_secrets(parts) and not pendo.allow_insecure_http:
        return "plain http shows the secret to the network; use https, or set pendo.allow_insecure_http"
    return None


def _timeouts(settings: Settings) -> Iterator[Finding]:
    session = settings.kafka.session_timeout_seconds
    if settings.pendo.request_timeout_seconds >= session / 2:
        yield (
            ("pendo", "request_timeout_seconds"),
            f"it should be under half of kafka.session_timeout_seconds, which is {session:g}",
        )


def _placeholders(template: str) -> set[str]:
    names = (part.partition("}")[0] for part in template.split("{")[1:])
    return set(names)
