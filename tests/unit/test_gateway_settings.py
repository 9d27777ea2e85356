"""The gateway's own settings, and the file that it shares with the consumer."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from flagpost_consumer.settings import Needs
from flagpost_consumer.settings import Settings as ConsumerSettings
from flagpost_consumer.settings import load_settings as load_consumer_settings
from flagpost_publisher.gateway.settings import GatewaySettings, Settings, load_settings
from flagpost_settings.kafka import GatewayTopics
from flagpost_settings.problems import SettingsError
from flagpost_settings.secrets import Secret
from flagpost_settings.section import SECTIONS

HUNTER = "hunter2-hunter2"
NEEDED = {
    "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "FLAGPOST_GATEWAY__WRITE_KEYS": f'["{HUNTER}"]',
}


def load(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "flagpost.yaml"
    path.write_text(text)
    return load_settings(path, {**NEEDED, **(environ or {})})


def refusal(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path, environ)
    assert HUNTER not in repr(caught.value)
    return str(caught.value)


# Its own keys

DEFAULTS = {
    "host": "0.0.0.0",  # noqa: S104
    "port": 8081,
    "admin_port": 8082,
    "webhook_topic": "flagpost.pendo-webhooks",
    "webhook_max_age_seconds": 86_400.0,
    "webhook_secret": None,
    "webhook_secret_file": None,
    "write_keys_file": None,
    "trusted_proxies": [],
    "keys": {},
    "max_body_bytes": 512_000,
}


def test_the_defaults_are_those_of_the_contract() -> None:
    assert GatewaySettings().model_dump(exclude={"write_keys"}) == DEFAULTS


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("host", "::1", "::1"),
        ("port", "0", 0),
        ("admin_port", "9000", 9000),
        ("webhook_topic", "hooks", "hooks"),
        ("webhook_max_age_seconds", "60", 60.0),
        ("max_body_bytes", "1000", 1000),
        ("trusted_proxies", '["10.0.0.0/8", "::1"]', [ip_network("10.0.0.0/8"), ip_network("::1")]),
        ("webhook_secret", HUNTER, Secret(HUNTER)),
    ],
)
def test_every_key_has_its_variable(key: str, text: str, value: object) -> None:
    settings = load_settings(None, {**NEEDED, f"FLAGPOST_GATEWAY__{key.upper()}": text})
    assert getattr(settings.gateway, key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", ""),
        ("port", 65_536),
        ("port", "8081"),
        ("admin_port", -1),
        ("webhook_topic", "a b"),
        ("webhook_max_age_seconds", 0),
        ("max_body_bytes", 0),
        ("max_body_bytes", 1_000_001),
        ("trusted_proxies", "10.0.0.0/8"),
        ("trusted_proxies", ["10.0.0.0/33"]),
        ("trusted_proxies", ["proxy.example"]),
        ("trusted_proxies", [7]),
        ("write_keys", HUNTER),
        ("write_keys", [1]),
        ("write_keys", [""]),
        ("webhook_secret", ""),
    ],
)
def test_impossible_values_are_named(key: str, value: object, tmp_path: Path) -> None:
    environ = {} if key == "write_keys" else NEEDED
    path = tmp_path / "flagpost.yaml"
    path.write_text(yaml.safe_dump({"kafka": {"bootstrap_servers": "k:1"}, "gateway": {key: value}}))
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ)
    assert str(caught.value).startswith(f"gateway.{key}")
    assert HUNTER not in repr(caught.value)


def test_missing_settings_are_named() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {})
    assert [problem.key for problem in caught.value.problems] == [
        "kafka.bootstrap_servers",
        "gateway.write_keys",
    ]


@pytest.mark.parametrize("keys", [[], None])
def test_empty_write_keys_are_refused(keys: object, tmp_path: Path) -> None:
    assert refusal("", tmp_path, {"FLAGPOST_GATEWAY__WRITE_KEYS": json.dumps(keys)}).startswith(
        "gateway.write_keys"
    )


@pytest.mark.parametrize("key", [f"{HUNTER} x", f"{HUNTER}:", f"{HUNTER}é", f"{HUNTER}\n"])
def test_a_write_key_that_no_header_can_carry_is_refused(key: str, tmp_path: Path) -> None:
    given = {"FLAGPOST_GATEWAY__WRITE_KEYS": json.dumps([HUNTER, key])}
    assert refusal("", tmp_path, given).startswith("gateway.write_keys[1] (FLAGPOST_GATEWAY__WRITE_KEYS)")


def test_write_keys_may_be_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\none-key-4711\r\n\ntwo-key-4711\n\n")
    source = load(f"gateway: {{write_keys_file: {file}, write_keys: null}}", tmp_path, {
        "FLAGPOST_GATEWAY__WRITE_KEYS": "null"
    }).gateway.write_keys_source  # fmt: skip
    assert source is not None
    assert source.current().split() == ["one-key-4711", "two-key-4711"]


@pytest.mark.parametrize("content", ["", "\n", "a b\n", f"short\n{HUNTER}:\n"])
def test_a_file_that_holds_no_write_keys_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    said = refusal("", tmp_path, {
        "FLAGPOST_GATEWAY__WRITE_KEYS": "null", "FLAGPOST_GATEWAY__WRITE_KEYS_FILE": str(file)
    })  # fmt: skip
    assert said.startswith(f"gateway.write_keys_file ({file})")


@pytest.mark.parametrize("key", ["write_keys", "webhook_secret"])
def test_a_secret_given_twice_is_refused(key: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("x")
    given = {f"FLAGPOST_GATEWAY__{key.upper()}_FILE": str(file), "FLAGPOST_GATEWAY__WEBHOOK_SECRET": HUNTER}
    assert f"gateway.{key} is given as well" in refusal("", tmp_path, given)


def test_two_servers_have_two_ports(tmp_path: Path) -> None:
    assert refusal("gateway: {port: 1, admin_port: 1}", tmp_path).startswith("gateway.admin_port")
    assert load("gateway: {port: 0, admin_port: 0}", tmp_path).gateway.port == 0


def test_webhooks_have_a_topic_of_their_own(tmp_path: Path) -> None:
    assert "gateway.webhook_topic" in refusal("gateway: {webhook_topic: flagpost.events}", tmp_path)


def test_no_repr_shows_a_key() -> None:
    settings = load_settings(None, {**NEEDED, "FLAGPOST_GATEWAY__WEBHOOK_SECRET": HUNTER})
    assert HUNTER not in repr(settings) + str(settings) + settings.model_dump_json()


# The file that both programs read


def test_every_section_belongs_to_one_program_or_is_shared() -> None:
    assert {*ConsumerSettings.model_fields, *Settings.model_fields, "publisher"} == set(SECTIONS)
    assert GatewayTopics.model_fields.keys() < GatewaySettings.model_fields.keys()


def test_the_consumers_sections_are_accepted_unchecked(tmp_path: Path) -> None:
    others = sorted(set(SECTIONS) - Settings.model_fields.keys())
    tree: dict[str, Any] = {name: {"any": HUNTER} for name in others}
    environ = {f"FLAGPOST_{name.upper()}__WHATEVER": HUNTER for name in others}
    assert load(yaml.safe_dump(tree), tmp_path, environ) == load_settings(None, NEEDED)


def test_the_consumers_settings_in_the_kafka_section_are_accepted(tmp_path: Path) -> None:
    text = "kafka: {group_id: g, ledger_topic: l, dead_letter_topic: d, group_protocol: consumer}"
    assert load(text, tmp_path, {"FLAGPOST_KAFKA__SESSION_TIMEOUT_SECONDS": "60"}).kafka.group_id == "g"


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("kafkaa: {}", "kafkaa", "kafka"),
        ("pendoo: {}", "pendoo", "pendo"),
        ("gatway: {}", "gatway", "gateway"),
        ("kafka: {topik: x}", "kafka.topik", "kafka.topic"),
    ],
)
def test_a_misspelt_section_or_key_is_refused_by_both(
    text: str, key: str, meant: str, tmp_path: Path
) -> None:
    path = tmp_path / "flagpost.yaml"
    path.write_text(text)
    said = f"{key} ({path}): there is no such setting; did you mean {meant}?"
    assert said in refusal(text, tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_consumer_settings(path, {}, Needs.NOTHING)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "variable", ["FLAGPOST_GATEWAY__WRITE_KEY", "FLAGPOST_KAFFKA__TOPIC", "FLAGPOST_X__Y"]
)
def test_a_misspelt_variable_is_refused(variable: str, tmp_path: Path) -> None:
    assert f"({variable})" in refusal("", tmp_path, {variable: HUNTER})


def test_properties_that_flagpost_sets_are_refused_by_the_gateway_too(tmp_path: Path) -> None:
    assert "Flagpost sets this" in refusal("kafka: {properties: {acks: '1'}}", tmp_path)
