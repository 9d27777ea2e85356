"""Every key of docs/contract.md#settings: its default, its variable, a wrong type, an impossible value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from flagpost_consumer.settings import Needs, Secret, Settings, SettingsError, load_settings
from flagpost_settings.keys import Keys

NOTHING_IMPOSSIBLE = object()
"""For keys that accept every value of the right type."""


@dataclass(frozen=True)
class Key:
    name: str
    default: Any
    variable_text: str
    value: Any
    wrong_type: Any
    impossible: Any = NOTHING_IMPOSSIBLE
    beside: tuple[tuple[str, str], ...] = ()
    """Other variables that this key requires."""

    @property
    def environ(self) -> dict[str, str]:
        return {**dict(self.beside), self.variable: self.variable_text}

    @property
    def variable(self) -> str:
        return "FLAGPOST_" + self.name.upper().replace(".", "__")


LONG = "x" * 250
USER = (("FLAGPOST_KAFKA__SCHEMA_REGISTRY__USERNAME", "u"),)
CERTIFICATE = (("FLAGPOST_KAFKA__SCHEMA_REGISTRY__CERTIFICATE_FILE", "/c"),)
KEYED = (("FLAGPOST_PRIVACY__KEY_FILE", "/k"),)
EVENTS = {"page": "page_view", "Product Viewed": "product_viewed", "Order Completed": "purchase"}

KEYS = [
    Key("kafka.bootstrap_servers", None, "a:1,b:2", "a:1,b:2", 9092, ""),
    Key("kafka.group_id", "flagpost", "123", "123", 123, ""),
    Key("kafka.topic", "flagpost.events", "t", "t", 1, "a b"),
    Key("kafka.ledger_topic", "flagpost.ledger", "t", "t", 1, LONG),
    Key("kafka.dead_letter_topic", "flagpost.dead-letters", "t", "t", 1, "ä"),
    Key("kafka.suppressions_topic", "flagpost.suppressions", "t", "t", 1, "a/b"),
    Key("kafka.impressions_topic", None, "t", "t", 1, "a/b"),
    Key("kafka.properties", {}, '{"a": true, "b": 1.5}', {"a": "true", "b": "1.5"}, ["a"], {"a": None}),
    Key("kafka.properties_files", {}, '{"sasl.password": "/p"}', {"sasl.password": "/p"}, "/p", {"a": ""}),
    Key("kafka.group_protocol", "classic", "consumer", "consumer", 1, "eager"),
    Key("kafka.session_timeout_seconds", 45.0, "60", 60.0, "60", 0),
    Key("kafka.max_event_bytes", 65536, "1000000", 1_000_000, "1000000", 0),
    Key("kafka.schema_registry.url", None, "http://r:8081", "http://r:8081", 1, "r:8081"),
    Key("kafka.schema_registry.username", None, "u", "u", 1, ""),
    Key("kafka.schema_registry.unknown_seconds", 60.0, "30", 30.0, "30", 0),
    Key("kafka.schema_registry.password", None, "0123", Secret("0123"), 123, "", USER),
    Key("kafka.schema_registry.password_file", None, "/p", "/p", 1, "", USER),
    Key("kafka.schema_registry.proxy", None, "none", Secret("none"), 3128, "socks5://p:1080"),
    Key("kafka.schema_registry.ca_file", None, "/ca", "/ca", True, ""),
    Key("kafka.schema_registry.certificate_file", None, "/c", "/c", 1, ""),
    Key("kafka.schema_registry.key_file", None, "/k", "/k", 1, "", CERTIFICATE),
    Key("kafka.schema_registry.allow_insecure_http", False, "true", True, "yes"),
    Key("pendo.region", "us", "eu", "eu", 1, "mars"),
    Key("pendo.track_url", None, "https://t/x", "https://t/x", 1, "ftp://t"),
    Key("pendo.api_url", None, "https://a", "https://a", 1, "app.pendo.io"),
    Key("pendo.allow_insecure_http", False, "true", True, "yes"),
    Key("pendo.track_secret", None, "0123", Secret("0123"), 123, ""),
    Key("pendo.track_secret_file", None, "/s", "/s", 1, ""),
    Key("pendo.integration_key", None, "k", Secret("k"), ["k"], ""),
    Key("pendo.integration_key_file", None, "/k", "/k", 1, ""),
    Key("pendo.track_secret_header", "x-pendo-integration-key", "x-secret", "x-secret", 1, "x secret"),
    Key("pendo.proxy", None, "http://u:p@p:3128", Secret("http://u:p@p:3128"), 3128, "https://p:3128"),
    Key("pendo.ca_file", None, "/ca", "/ca", True, ""),
    Key("pendo.max_connections", 64, "8", 8, "8", 0),
    Key("pendo.request_timeout_seconds", 10.0, "5.5", 5.5, "5", 0),
    Key("pendo.metadata_timeout_seconds", 60.0, "90", 90.0, True, -1),
    Key("pendo.track_requests_per_minute", None, "100", 100.0, "100", 0),
    Key("pendo.metadata_requests_per_minute", 1000.0, "null", None, "none", float("inf")),
    Key("delivery.visitor_interval_seconds", 1.0, "0", 0.0, "0", -1),
    Key("delivery.max_pending", 20_000, "5", 5, 5.5, 0),
    Key("delivery.max_pending_bytes", 67_108_864, "65536", 65_536, 5.5, 0),
    Key("delivery.max_pending_per_visitor", 600, "0", 0, False, -1),
    Key("delivery.max_attempts", 10, "1", 1, "1", 0),
    Key("delivery.max_age_seconds", 600_000.0, "604800", 604_800.0, "1", 604_801),
    Key("delivery.max_future_seconds", 300.0, "0", 0.0, [], float("nan")),
    Key("delivery.drain_seconds", 20.0, "1.5", 1.5, "1.5", -1),
    Key("dedupe.ttl_seconds", 1800.0, "60", 60.0, "60", -1),
    Key("dedupe.max_entries", 2_000_000, "10", 10, 10.5, 0),
    Key("select.environments.allow", None, '["prod*"]', ["prod*"], "prod", [1]),
    Key("select.environments.deny", None, '["dev"]', ["dev"], {"a": 1}, [None]),
    Key("select.services.allow", None, '["a", "b"]', ["a", "b"], "a", [1]),
    Key("select.services.deny", None, "[]", [], "a", [1]),
    Key("select.accounts.allow", None, '["acme-*"]', ["acme-*"], 1, [1]),
    Key("select.accounts.deny", None, '["test"]', ["test"], True, [1]),
    Key("decisions.event_name", "Experiment Viewed", "true", "true", True, ""),
    Key("decisions.experiments_only", False, "true", True, 1),
    Key("decisions.rule_type_property", False, "true", True, 1),
    Key("decisions.flags_allow", None, '["a*"]', ["a*"], "a*", [1]),
    Key("decisions.flags_deny", None, '["b"]', ["b"], {"b": 1}, [None]),
    Key("decisions.attribute_properties", [], '["plan"]', ["plan"], "plan", [1]),
    Key("decisions.visitor_metadata", True, "false", False, "false"),
    Key(
        "decisions.metadata_field", "[Optimizely] {flag_key}", "opt_{flag_key}", "opt_{flag_key}", 1, "{flag}"
    ),
    Key("decisions.metadata_fields", {}, '{"a": "f"}', {"a": "f"}, ["a"], {"a": 1}),
    Key("metadata.batch_size", 1000, "10", 10, "10", 1001),
    Key("metadata.batch_bytes", 4_194_304, "65536", 65_536, 1e6, 65_535),
    Key("metadata.linger_seconds", 2.0, "0.5", 0.5, "0.5", -1),
    Key("metadata.create_missing", True, "false", False, 0),
    Key("mapping.events", EVENTS, '{"a": "b"}', {"a": "b"}, "a", {"a": 1}),
    Key("mapping.anonymous", "drop", "as_anonymous", "as_anonymous", 1, "keep"),
    Key("mapping.identity_properties", [], '["locale"]', ["locale"], "locale", ["email"]),
    Key("mapping.properties_policy", "trim", "reject", "reject", 1, "cut"),
    Key("consent.category", "analytics", "1", "1", 1, ""),
    Key("consent.required", False, "true", True, "true"),
    Key("privacy.ledger_ids", "plain", "keyed_hash", "keyed_hash", 1, "hash", KEYED),
    Key("privacy.key_file", None, "/k", "/k", 1, ""),
    Key("admin.host", "0.0.0.0", "::1", "::1", 1, ""),  # noqa: S104
    Key("admin.port", 8080, "0", 0, "0", 65_536),
    Key("metrics.flags", [], '["a"]', ["a"], "a", [1]),
    Key(
        "metrics.splits",
        {},
        '{"f": {"a": 50, "b": 0.5}}',
        {"f": {"a": 50.0, "b": 0.5}},
        "f",
        {"f": {"a": 1, "b": 0}},
    ),
    Key("web.host", "127.0.0.1", "::1", "::1", 1, ""),
    Key("web.port", 8084, "0", 0, "0", 65_536),
    Key("web.hosts", [], '["flags.example"]', ["flags.example"], "a", ["a b"]),
    Key("web.token", None, "t" * 16, Secret("t" * 16), 1, ""),
    Key("web.token_file", None, "/t", "/t", 1, ""),
    Key("web.show_ids", False, "true", True, "true"),
    Key("web.consumers", [], '["http://c:8080"]', ["http://c:8080"], "a", ["https://c/x"]),
    Key("web.window_seconds", 604_800.0, "60", 60.0, "60", 0),
    Key("web.max_bytes", 536_870_912, "33554432", 33_554_432, "1", 1),
    Key("log.level", "info", "debug", "debug", 1, "loud"),
    Key("log.format", None, "console", "console", 1, "xml"),
]

every_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
every_limited_key = pytest.mark.parametrize(
    "key", [key for key in KEYS if key.impossible is not NOTHING_IMPOSSIBLE], ids=lambda key: key.name
)


def _value(settings: Settings, name: str) -> Any:
    here: Any = settings
    for part in name.split("."):
        here = getattr(here, part)
    return here


def _file(tmp_path: Path, name: str, value: object) -> Path:
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    path = tmp_path / "flagpost.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


def _refusal(path: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ, Needs.NOTHING)
    return str(caught.value)


def _keys_of(model: type[BaseModel], above: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= _keys_of(kind, f"{above}{name}.")
        else:
            found.add(above + name)
    return found


def test_the_table_names_every_key() -> None:
    ours = {name for name in _keys_of(Settings) if name.partition(".")[0] not in Keys(Settings).others}
    assert {key.name for key in KEYS} == ours


@every_key
def test_default(key: Key) -> None:
    assert _value(load_settings(None, {}, Needs.NOTHING), key.name) == key.default


@every_key
def test_variable(key: Key) -> None:
    settings = load_settings(None, key.environ, Needs.NOTHING)
    assert _value(settings, key.name) == key.value


@every_key
def test_the_variable_wins_over_the_file(key: Key, tmp_path: Path) -> None:
    path = _file(tmp_path, key.name, key.wrong_type)
    settings = load_settings(path, key.environ, Needs.NOTHING)
    assert _value(settings, key.name) == key.value


@every_key
def test_wrong_type_in_the_file(key: Key, tmp_path: Path) -> None:
    path = _file(tmp_path, key.name, key.wrong_type)
    refusal = _refusal(path, {})
    assert key.name in refusal
    assert f"({path})" in refusal
    assert "it should be" in refusal or "a secret should be" in refusal


@every_limited_key
def test_impossible_value_in_the_file(key: Key, tmp_path: Path) -> None:
    path = _file(tmp_path, key.name, key.impossible)
    refusal = _refusal(path, {})
    assert refusal.startswith(key.name)
    assert f"({path})" in refusal


@every_limited_key
def test_impossible_value_in_a_variable(key: Key) -> None:
    text = key.impossible if isinstance(key.impossible, str) else json.dumps(key.impossible)
    refusal = _refusal(None, {key.variable: text})
    assert refusal.startswith(key.name)
    assert f"({key.variable})" in refusal


@every_key
def test_the_message_about_a_misspelt_key_names_the_right_one(key: Key, tmp_path: Path) -> None:
    misspelt = key.name + "x"
    refusal = _refusal(_file(tmp_path, misspelt, "hunter2"), {})
    assert misspelt in refusal
    assert f"did you mean {key.name}" in refusal
    assert "hunter2" not in refusal
