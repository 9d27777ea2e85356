"""The programs themselves accept what the chart mounts, find their secrets, and listen where the probes ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flagpost_consumer.app import LEAVE_SECONDS
from flagpost_consumer.settings import Needs, load_settings
from flagpost_publisher.gateway.program import STOP_SECONDS
from flagpost_publisher.gateway.settings import load_settings as load_gateway_settings
from flagpost_settings.secrets import SecretSource
from flagpost_settings.section import SECTIONS
from helm.mounted import mounted
from helm.rendering import CHART, Object, Rendered, rendered, rendered_set, value_sets, values_of

SETS = value_sets()
WITH_GATEWAY = [name for name in SETS if values_of(name).get("gateway", {}).get("enabled")]

CHARACTERS = st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S", "Zs"])
YAML_TEXT = st.text(CHARACTERS, max_size=30).filter(lambda text: text not in ("=", "<<"))
"""But for two words of YAML 1.1 that Helm does not put in quotes: the program would say which line to mend."""
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(0.001, 1e6)
"""What settings are made of: Helm writes smaller ones as 1e-09, which is a text in YAML 1.1."""
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
    assert (gateway.webhook_secret_source is None) == (
        not values_of(name).get("secrets", {}).get("webhookSecret")
    )
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Requests in flight, then Kafka: each may take as long.
    assert pod["terminationGracePeriodSeconds"] > slept + 2 * STOP_SECONDS


@pytest.mark.parametrize("name", SETS)
def test_every_flagpost_command_sees_what_the_consumer_sees(name: str) -> None:
    release = rendered_set(name)
    consumer = release.container("consumer")
    for pod_name, pod in release.pods():
        if pod_name.endswith("-gateway"):
            continue
        assert pod["volumes"] == release.pod_spec("consumer")["volumes"]
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["command"][0] == "flagpost"
            for key in ("image", "env", "volumeMounts", "securityContext"):
                assert container[key] == consumer[key]


def test_each_component_gets_its_own_secrets_and_no_others(tmp_path: Path) -> None:
    release = rendered_set("everything")
    found = {
        component: mounted(
            release, release.pod_spec(component), release.container(component), tmp_path / component
        )
        for component in ("consumer", "gateway")
    }
    files = {
        component: sorted(
            str(path.relative_to(tmp_path / component / "run/secrets/flagpost"))
            for path in (tmp_path / component / "run").rglob("*")
            if path.is_file()
        )
        for component in found
    }
    shared = ["kafka.schema_registry.password", "kafka/sasl.password"]
    assert files == {
        "consumer": sorted(["pendo.integration_key", "pendo.track_secret", *shared]),
        "gateway": sorted(
            [
                "gateway.keys/checkout",
                "gateway.keys/web",
                "gateway.webhook_secret",
                "gateway.write_keys",
                *shared,
            ]
        ),
    }
    keys = load_gateway_settings(found["gateway"].config, found["gateway"].environ).gateway.keys
    assert {name: _text(key.source(name)) for name, key in keys.items()} == {
        "checkout": "flagpost/checkout-key",
        "web": "flagpost/web-key-4711",
    }
    assert keys["web"].origins == ["https://www.example.com"]
    kafka = load_settings(found["consumer"].config, found["consumer"].environ, Needs.KAFKA).kafka
    read = {name: source.current() for name, source in kafka.property_sources.items()}
    assert read == {"sasl.password": "flagpost/kafka-password", "ssl.key.password": "/vault/key-password"}


def test_inline_secrets_reach_the_programs(tmp_path: Path) -> None:
    release = rendered_set("inline-secrets")
    found = mounted(release, release.pod_spec("gateway"), release.container("gateway"), tmp_path)
    gateway = load_gateway_settings(found.config, found.environ).gateway
    assert _text(gateway.write_keys_source) == "write-key-one\nwrite-key-two"


def test_kafkas_secrets_may_come_from_another_operators_secret(tmp_path: Path) -> None:
    release = rendered_set("kafka-tls-sasl")
    found = mounted(release, release.pod_spec("consumer"), release.container("consumer"), tmp_path)
    settings = load_settings(found.config, found.environ, Needs.KAFKA)
    assert _text(settings.kafka.property_sources["sasl.password"]) == "flagpost-kafka-user/password"
    assert settings.kafka.properties["ssl.ca.location"] == "/etc/kafka-ca/ca.crt"


@settings(deadline=None)
@given(st.dictionaries(YAML_TEXT, SETTINGS, max_size=4))
def test_settings_come_out_as_they_went_in(section: dict[str, Any]) -> None:
    config = {"kafka": {"bootstrap_servers": "kafka:9092"}, "mapping": section}
    assert _settings_file(rendered({"config": config})) == config


def test_settings_have_the_sections_of_the_program() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["config"]["propertyNames"]["enum"] == list(SECTIONS)


def _settings_file(release: Rendered) -> Any:
    return yaml.safe_load(release.one("ConfigMap")["data"]["flagpost.yaml"])


def _port(container: Object, name: str) -> int:
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == name)
    number: int = port
    return number


def _text(source: SecretSource | None) -> str:
    assert source is not None
    return source.current()
