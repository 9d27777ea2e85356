"""Misspelt variables: names that differ from a setting's variable by underscores only.

Before the fix, `FLAGPOST_PENDO_REGION=eu` was ignored silently, and the events of a European company went to the US.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.settings import Needs, SettingsError, load_settings
from flagpost_consumer.settings.sections import Settings
from flagpost_publisher import Publisher
from flagpost_publisher.gateway import settings as gateway_settings
from flagpost_publisher.gateway.program import run
from flagpost_settings.keys import Keys
from flagpost_settings.variables import squashed

MISSPELT = {
    "FLAGPOST_PENDO_REGION": "FLAGPOST_PENDO__REGION",
    "FLAGPOST__PENDO__REGION": "FLAGPOST_PENDO__REGION",
    "FLAGPOST_PENDO___REGION": "FLAGPOST_PENDO__REGION",
    "FLAGPOST_PENDO__REGION_": "FLAGPOST_PENDO__REGION",
    "FLAGPOSTPENDO__REGION": "FLAGPOST_PENDO__REGION",
    "_FLAGPOST_PENDO__REGION": "FLAGPOST_PENDO__REGION",
    "FLAGPOST_PENDO__TRACKSECRET": "FLAGPOST_PENDO__TRACK_SECRET",
    "FLAGPOST_PENDO__TRACK__SECRET": "FLAGPOST_PENDO__TRACK_SECRET",
    "FLAGPOST_KAFKA__SCHEMA_REGISTRY_URL": "FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL",
    "FLAGPOST_KAFKA_BOOTSTRAP_SERVERS": "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS",
    "FLAGPOST__CONFIG": "FLAGPOST_CONFIG",
}
LINKS = {
    "FLAGPOST_GATEWAY_PORT": "tcp://10.0.0.1:8081",
    "FLAGPOST_GATEWAY_ADMIN_PORT": "tcp://[fd00:10::1]:8082",
    "FLAGPOST_ADMIN_PORT": "udp://10.0.0.1:8080",
    "FLAGPOST_GATEWAY_SERVICE_HOST": "10.0.0.1",
    "FLAGPOST_GATEWAY_SERVICE_PORT": "8081",
    "FLAGPOST_GATEWAY_SERVICE_PORT_HTTP": "8081",
    "FLAGPOST_GATEWAY_PORT_8081_TCP": "tcp://10.0.0.1:8081",
    "FLAGPOST_GATEWAY_PORT_8081_TCP_PROTO": "tcp",
    "FLAGPOST_GATEWAY_PORT_8081_TCP_PORT": "8081",
    "FLAGPOST_GATEWAY_PORT_8081_TCP_ADDR": "10.0.0.1",
}
"""Variables that Kubernetes sets in a pod if there are Services of such names (https://kubernetes.io/docs/concepts/services-networking/
service/#environment-variables)."""

GATEWAY = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "k:9092", "FLAGPOST_GATEWAY__WRITE_KEYS": '["key-4711-4711"]'}


def problems_of(environ: dict[str, str], load: str) -> str:
    try:
        if load == "consumer":
            load_settings(None, environ, Needs.NOTHING)
        else:
            gateway_settings.load_settings(None, {**GATEWAY, **environ})
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("given", "meant"), MISSPELT.items())
def test_a_misspelt_variable_stops_the_consumer_and_names_the_right_one(given: str, meant: str) -> None:
    said = problems_of({given: "my-secret"}, "consumer")

    assert f"({given})" in said or said.startswith(f"{given}:")
    assert f"write {meant}" in said
    assert "my-secret" not in said


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("FLAGPOST_KAFKA_TOPIC", "FLAGPOST_KAFKA__TOPIC"),
        ("FLAGPOST_GATEWAY_WRITE_KEYS", "FLAGPOST_GATEWAY__WRITE_KEYS"),
        ("FLAGPOST_GATEWAY_PORT", "FLAGPOST_GATEWAY__PORT"),
        ("FLAGPOST_GATEWAY__ADMINPORT", "FLAGPOST_GATEWAY__ADMIN_PORT"),
    ],
)
def test_a_misspelt_variable_stops_the_gateway(
    capsys: pytest.CaptureFixture[str], given: str, meant: str
) -> None:
    assert run(None, {**GATEWAY, given: "8081"}) == 2
    assert f"write {meant}" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["consumer", "gateway"])
def test_kubernetes_service_links_are_not_settings(program: str) -> None:
    assert problems_of(LINKS, program) == ""


@pytest.mark.parametrize("value", ["8081", "tcp://10.0.0.1", "http://10.0.0.1:8081", "tcp://", ""])
def test_a_value_that_is_not_a_service_link_is_a_misspelling(value: str) -> None:
    assert "write FLAGPOST_GATEWAY__PORT" in problems_of({"FLAGPOST_GATEWAY_PORT": value}, "gateway")


def test_other_programs_variables_are_ignored() -> None:
    """Users of Flagpost may have their own variables, and each program checks only its own sections."""
    theirs = {"FLAGPOST_WRITE_KEY": "x", "FLAGPOST_HOME": "/", "FLAGPOST": "1", "FLAGPOST_": "1", "HOME": "/"}

    assert problems_of(theirs | {"FLAGPOST_GATEWAY__WRITE_KEYS": "[]"}, "consumer") == ""
    assert problems_of(theirs | {"FLAGPOST_PENDO__REGION": "eu"}, "gateway") == ""


@pytest.mark.parametrize("model", [Settings, gateway_settings.Settings])
def test_no_two_settings_differ_by_underscores_only(model: type[Settings]) -> None:
    variables = Keys(model).variables

    assert len({squashed(name) for name in variables}) == len(variables) > 20


COMMANDS = [
    ["consume"],
    ["check"],
    ["topics", "create"],
    ["preview"],
    ["import", "FILE", "--type", "visitor"],
    ["tail"],
    ["reconcile"],
    ["dead-letters", "list"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_misspelt_variable_stops_every_command(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("visitor_id\nv\n")
    arguments = [str(file) if each == "FILE" else each for each in command]

    done = CliRunner().invoke(flagpost, arguments, env={"FLAGPOST_PENDO_REGION": "eu"})

    assert done.exit_code == 2, done.output
    assert "write FLAGPOST_PENDO__REGION" in done.output


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("FLAGPOST_KAFKA_BOOTSTRAP_SERVERS", "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS"),
        ("FLAGPOST_PUBLISHER_SERVICE", "FLAGPOST_PUBLISHER__SERVICE"),
        ("FLAGPOST_KAFKA__SCHEMA_REGISTRY_URL", "FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL"),
        ("FLAGPOST_KAFKA_PROPERTIES", "FLAGPOST_KAFKA__PROPERTIES"),
        ("FLAGPOST_KAFKA_PROPERTIES_FILES", "FLAGPOST_KAFKA__PROPERTIES_FILES"),
    ],
)
def test_a_publisher_refuses_misspelt_variables(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.setenv("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv(given, "x")

    with pytest.raises(ValueError, match=re.escape(given) + ".*" + re.escape(f"write {meant}")):
        Publisher.from_env()


def test_a_publisher_ignores_service_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    for name, value in {**LINKS, "FLAGPOST_KAFKA_TOPIC": "tcp://10.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)

    Publisher.from_env().close(0)
