"""The programs themselves accept what the chart mounts, find their secrets, and listen where the probes ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.service.life import LEAVE_SECONDS
from flagpost_consumer.settings import Needs, load_settings
from flagpost_publisher.gateway.program import STOP_SECONDS
from flagpost_publisher.gateway.settings import load_settings as load_gateway_settings
from flagpost_settings.secrets import SecretSource
from helm.mounted import mounted
from helm.rendering import Object, Rendered, rendered, rendered_set, value_sets, values_of

SETS = value_sets()
WITH_GATEWAY = [name for name in SETS if values_of(name).get("gateway", {}).get("enabled")]

CHARACTERS = st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S", "Zs"])
YAML_TEXT = st.text(CHARACTERS, max_size=30).filter(lambda text: text not in ("=", "<<"))
"""Without two words of YAML 1.1 that Helm does not quote: the program would report which line to fix."""
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(0.001, 1e6)
"""The range of settings' numbers. Helm writes smaller ones as 1e-09, which is a text in YAML 1.1."""
SCALARS = st.none() | st.booleans() | NUMBERS | YAML_TEXT
SETTINGS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(YAML_TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", SETS)
def test_consumer_accepts_its_settings(name: str, tmp_path: Path) -> None:
    release = rendered_set(name)
    found = mounted(release, release.pod_spec("consumer"), release.container("consumer"), tmp_path)
    settings = load_settings(found.config, found.environ, Needs.KAFKA | Needs.PENDO)
    assert settings.admin.port == _port(release.container("consumer"), "admin")
    grace_seconds = release.pod_spec("consumer")["terminationGracePeriodSeconds"]
    assert grace_seconds > settings.delivery.drain_seconds + LEAVE_SECONDS
    sources = [*settings.kafka.secret_sources, settings.pendo.track_secret_source]
    assert all(source.current() for source in sources if source is not None)


@pytest.mark.parametrize("name", WITH_GATEWAY)
def test_gateway_accepts_its_settings(name: str, tmp_path: Path) -> None:
    release = rendered_set(name)
    pod, container = release.pod_spec("gateway"), release.container("gateway")
    found = mounted(release, pod, container, tmp_path)
    gateway = load_gateway_settings(found.config, found.environ).gateway
    assert gateway.port == _port(container, "http")
    assert gateway.admin_port == _port(container, "admin")
    assert _text(gateway.write_keys_source)
    given = values_of(name).get("secrets", {}).get("gateway", {})
    assert (gateway.webhook_secret_source is None) == (not given.get("webhookSecret"))
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # First the requests in flight end, then Kafka's client: each may take STOP_SECONDS.
    assert pod["terminationGracePeriodSeconds"] > slept + 2 * STOP_SECONDS


@pytest.mark.parametrize("name", SETS)
def test_every_command_runs_what_the_consumer_runs(name: str) -> None:
    release = rendered_set(name)
    consumer = release.container("consumer")
    for component, pod in release.pods():
        own = pod["containers"][0]
        assert own["name"] == component
        assert own["command"][0] == ("flagpost-gateway" if component == "gateway" else "flagpost")
        for key in ("image", "securityContext"):
            assert own[key] == consumer[key]


@pytest.mark.parametrize("name", SETS)
def test_commands_accept_their_settings(name: str, tmp_path: Path) -> None:
    release = rendered_set(name)
    needs = {
        "check": Needs.KAFKA | Needs.PENDO | Needs.WEBHOOK_TOPIC,
        "reconcile": Needs.KAFKA,
        "topics": Needs.KAFKA | Needs.WEBHOOK_TOPIC,
    }
    found = 0
    for component, pod in release.pods():
        if component in needs:
            files = mounted(release, pod, pod["containers"][0], tmp_path / component)
            load_settings(files.config, files.environ, needs[component])
            found += 1
    assert found >= 1


SHARED = ["kafka.schema_registry.password", "kafka/sasl.password"]
PENDO = ["pendo.integration_key", "pendo.track_secret"]


def test_each_component_gets_its_own_secrets_and_no_others(tmp_path: Path) -> None:
    """Only the consumer, and the check that asks Pendo, have Pendo's keys."""
    release = rendered_set("everything")
    files = {}
    for component, pod in release.pods():
        root = tmp_path / component
        mounted(release, pod, pod["containers"][0], root)
        secrets = root / "run/secrets/flagpost"
        files[component] = sorted(
            str(path.relative_to(secrets)) for path in secrets.rglob("*") if path.is_file()
        )
    assert files == {
        "consumer": sorted([*PENDO, *SHARED]),
        "check": sorted([*PENDO, *SHARED]),
        "reconcile": sorted(SHARED),
        "gateway": sorted(
            [
                "gateway.keys/checkout",
                "gateway.keys/web",
                "gateway.webhook_secret",
                "gateway.write_keys",
                *SHARED,
            ]
        ),
        "topics": ["kafka/sasl.password"],
    }
    found = mounted(
        release, release.pod_spec("consumer"), release.container("consumer"), tmp_path / "consumer"
    )
    gateway = mounted(
        release, release.pod_spec("gateway"), release.container("gateway"), tmp_path / "gateway"
    )
    keys = load_gateway_settings(gateway.config, gateway.environ).gateway.keys
    assert {name: _text(key.source(name)) for name, key in keys.items()} == {
        "checkout": "gateway/checkout-key",
        "web": "gateway/web-key-4711",
    }
    assert keys["web"].origins == ["https://www.example.com"]
    kafka = load_settings(found.config, found.environ, Needs.KAFKA).kafka
    read = {name: source.current() for name, source in kafka.property_sources.items()}
    assert read == {"sasl.password": "flagpost/kafka-password", "ssl.key.password": "/vault/key-password"}


def test_each_component_is_a_user_of_its_own_for_kafka(tmp_path: Path) -> None:
    release = rendered_set("kafka-tls-sasl")
    users = {}
    for component, pod in release.pods():
        found = mounted(release, pod, pod["containers"][0], tmp_path / component)
        kafka = load_settings(found.config, found.environ, Needs.KAFKA).kafka
        assert kafka.properties["ssl.ca.location"].endswith("/etc/kafka-ca/ca.crt")
        assert kafka.properties["security.protocol"] == "SASL_SSL"
        users[component] = kafka.properties["sasl.username"], _text(kafka.property_sources["sasl.password"])
    consumer = ("flagpost-consumer", "flagpost-consumer-kafka/password")
    assert users == {
        "consumer": consumer,
        "check": consumer,
        "reconcile": consumer,
        "gateway": ("flagpost-gateway", "flagpost-gateway-kafka/password"),
        "topics": ("flagpost-topics", "flagpost-topics-kafka/password"),
    }


def test_without_configured_secrets_each_component_has_its_own() -> None:
    user = {"secretProperties": {"sasl.password": "password"}}
    release = rendered({"gateway": {"enabled": True}, "kafkaUsers": dict.fromkeys(USERS, user)})
    secrets = {
        component: {
            source["secret"]["name"]
            for volume in pod["volumes"]
            for source in volume.get("projected", NONE)["sources"]
        }
        for component, pod in release.pods()
    }
    assert secrets == {
        "consumer": {"flagpost-consumer"},
        "check": {"flagpost-consumer"},
        "gateway": {"flagpost-gateway"},
        "topics": {"flagpost-topics"},
    }


USERS = ("consumer", "gateway", "topics")
NONE: dict[str, list[Any]] = {"sources": []}


def test_extra_secret_files_are_mounted_where_settings_can_name_them(tmp_path: Path) -> None:
    release = rendered_set("existing-secrets")
    mounted(release, release.pod_spec("gateway"), release.container("gateway"), tmp_path)
    file = tmp_path / "run/secrets/flagpost/files/extra-key"
    assert file.read_text() == "gateway-credentials/extra-key"


def test_inline_secrets_reach_the_programs(tmp_path: Path) -> None:
    release = rendered_set("inline-secrets")
    found = mounted(release, release.pod_spec("gateway"), release.container("gateway"), tmp_path)
    gateway = load_gateway_settings(found.config, found.environ).gateway
    assert _text(gateway.write_keys_source) == "write-key-one\nwrite-key-two"


@settings(deadline=None, max_examples=examples(40))
@given(st.dictionaries(YAML_TEXT, SETTINGS, max_size=10))
def test_settings_are_rendered_unchanged(section: dict[str, Any]) -> None:
    """The section is one that neither program describes; test_settings_schema.py tests the settings that they do."""
    config = {"kafka": {"bootstrap_servers": "kafka:9092"}, "publisher": section}
    assert _settings_file(rendered({"config": config})) == config


def _settings_file(release: Rendered) -> Any:
    return yaml.safe_load(release.one("ConfigMap")["data"]["flagpost.yaml"])


def _port(container: Object, name: str) -> int:
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == name)
    number: int = port
    return number


def _text(source: SecretSource | None) -> str:
    assert source is not None
    return source.current()
