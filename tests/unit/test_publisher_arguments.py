"""The constructor and from_env() name each wrong argument, before anything is published."""

import time
from pathlib import Path
from typing import Any

import pytest

from flagpost_publisher import Publisher
from flagpost_publisher.arguments import seconds_of

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"bootstrap_servers": None}, TypeError, "bootstrap_servers is of type NoneType; give a str"),
    ({"bootstrap_servers": " "}, ValueError, "bootstrap_servers is empty"),
    ({"topic": ""}, ValueError, "topic is empty"),
    ({"topic": "flagpost events"}, ValueError, "topic is no name of a topic; give at most 249 of"),
    ({"topic": "e" * 250}, ValueError, "topic is no name of a topic"),
    ({"impressions_topic": "a/b"}, ValueError, "impressions_topic is no name of a topic"),
    ({"service": 5}, TypeError, "service is of type int"),
    ({"environment": ""}, ValueError, "environment is empty"),
    ({"schema_registry_url": "registry:8081"}, ValueError, "schema_registry_url is not an http or https URL"),
    ({"visitor_id": 5}, TypeError, "visitor_id is of type int; give an attribute's name or a callable"),
    ({"visitor_id": ""}, ValueError, "visitor_id is empty"),
    ({"account_id": ["a"]}, TypeError, "account_id is of type list"),
    ({"attributes": "plan"}, TypeError, "attributes is of type str; give a list"),
    ({"attributes": [1]}, TypeError, "a member of attributes is of type int"),
    ({"dedupe_ttl_seconds": -1}, ValueError, "dedupe_ttl_seconds is -1; give seconds, 0 or more"),
    ({"dedupe_ttl_seconds": float("nan")}, ValueError, "dedupe_ttl_seconds is nan"),
    ({"dedupe_ttl_seconds": 10**400}, ValueError, "dedupe_ttl_seconds is inf; give seconds"),
    ({"dedupe_ttl_seconds": True}, TypeError, "dedupe_ttl_seconds is of type bool"),
    ({"dedupe_max_entries": 0}, ValueError, "dedupe_max_entries is 0"),
    ({"dedupe_max_entries": 2**31}, ValueError, "dedupe_max_entries is 2147483648; give 1 to 2147483647"),
    ({"dedupe_max_entries": 10**400}, ValueError, "dedupe_max_entries is inf"),
    ({"queue_max_messages": 0}, ValueError, "queue_max_messages is 0"),
    ({"queue_max_messages": 1.5}, TypeError, "queue_max_messages is of type float"),
    ({"consent": True}, TypeError, "consent is of type bool; give a map"),
    ({"consent": {"analytics": "yes"}}, TypeError, r"consent\['analytics'\] is of type str; give a bool"),
    ({"consent": {1: True}}, TypeError, "a category of consent is of type int"),
    ({"properties": ["acks"]}, TypeError, "properties is of type list"),
    ({"properties": {1: 2}}, TypeError, "a name in properties is of type int"),
    ({"properties": {"no.such": 1}}, ValueError, 'properties: No such configuration property: "no.such"'),
    ({"properties": {"socket.timeout.ms": "soon"}}, ValueError, "properties: .*socket.timeout.ms"),
    ({"properties": {"max.in.flight": 50}}, ValueError, "properties: .*max.in.flight"),
    ({"properties": {"stats_cb": print}}, ValueError, "properties: stats_cb is a callable, .*; leave it out"),
    ({"properties": {"throttle_cb": print}}, ValueError, "properties: throttle_cb is a callable"),
    ({"impressions_topic": ""}, ValueError, "impressions_topic is empty"),
    ({"impressions_topic": "flagpost.events"}, ValueError, "impressions_topic is the events' topic"),
    ({"on_error": "log"}, TypeError, "on_error is of type str; give a callable"),
    ({"unheard_of": 1}, TypeError, "unheard_of"),
]


@pytest.mark.parametrize(("arguments", "error", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_named(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Publisher(**{"bootstrap_servers": "127.0.0.1:1", **arguments})


@pytest.mark.parametrize(
    "name",
    [
        "acks",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.idempotence",
        "group.id",
        "on_delivery",
        "partitioner",
        "queue.buffering.max.messages",
        "transactional.id",
    ],
)
def test_properties_that_flagpost_owns_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"properties: {name} is set by Flagpost; leave it out"):
        Publisher(bootstrap_servers="127.0.0.1:1", properties={name: "x"})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (2.5, 2.5),
        (-1, 0),
        (float("inf"), 1e6),
        (10**400, 1e6),
        (-(10**400), 0),
        (float("nan"), 10),
        (None, 10),
        ("x", 10),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_time_that_is_none_does_not_raise(given: object, seconds: float) -> None:
    """docs/contract.md#publisher: no call raises. librdkafka waits for ever if a time is negative."""
    assert seconds_of(given) == seconds


def test_a_token_may_come_from_a_callable() -> None:
    """librdkafka calls it in a thread of its own."""
    properties = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": lambda _: ("token", time.time() + 3600),
    }
    Publisher(bootstrap_servers="127.0.0.1:1", properties=properties).close()


def test_what_the_caller_might_change_later_is_copied() -> None:
    """Before, `consent` was not."""
    consent, attributes, properties = {"analytics": True}, ["plan"], {"linger.ms": 1}
    publisher = Publisher(
        bootstrap_servers="127.0.0.1:1", consent=consent, attributes=attributes, properties=properties
    )
    consent.clear()
    attributes.clear()
    properties.clear()
    options = publisher._options
    assert (options.consent, options.attributes, options.properties) == (
        {"analytics": True},
        ("plan",),
        {"linger.ms": 1},
    )


def test_flush_and_close_return_whatever_they_are_given() -> None:
    publisher = Publisher(bootstrap_servers="127.0.0.1:1")
    assert publisher.flush("soon") == 0  # type: ignore[arg-type]
    assert publisher.close(None) == 0  # type: ignore[arg-type]


def test_the_arguments_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FLAGPOST_KAFKA__TOPIC", "events")
    monkeypatch.setenv("FLAGPOST_KAFKA__IMPRESSIONS_TOPIC", "impressions")
    monkeypatch.setenv("FLAGPOST_PUBLISHER__SERVICE", "checkout")
    monkeypatch.setenv("FLAGPOST_PUBLISHER__ENVIRONMENT", "production")
    monkeypatch.setenv("FLAGPOST_KAFKA__PROPERTIES", '{"sasl.username": "me", "linger.ms": 1}')
    monkeypatch.setenv("FLAGPOST_KAFKA__PROPERTIES_FILES", f'{{"sasl.password": "{secret}"}}')
    monkeypatch.setenv("FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL", "https://me:pass@registry.example")

    options = Publisher.from_env(attributes=["plan"])._options

    assert (options.bootstrap_servers, options.topic) == ("127.0.0.1:1", "events")
    assert options.impressions_topic == "impressions"
    assert (options.service, options.environment) == ("checkout", "production")
    assert options.properties == {"sasl.username": "me", "linger.ms": 1, "sasl.password": "s3cret"}
    assert options.schema_registry_url == "https://me:pass@registry.example"
    assert options.attributes == ("plan",)
    assert "s3cret" not in repr(options)
    assert "pass@" not in repr(options)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", None, "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS is not set"),
        ("FLAGPOST_KAFKA__PROPERTIES", "acks=1", "FLAGPOST_KAFKA__PROPERTIES is not JSON"),
        ("FLAGPOST_KAFKA__PROPERTIES", "[]", "FLAGPOST_KAFKA__PROPERTIES is JSON, but not an object"),
        (
            "FLAGPOST_KAFKA__PROPERTIES_FILES",
            '{"sasl.password": "/nowhere/x"}',
            "the file of sasl.password cannot",
        ),
        ("FLAGPOST_KAFKA__PROPERTIES_FILES", '{"sasl.password": 5}', "the file of sasl.password cannot"),
        ("FLAGPOST_KAFKA__PROPERTIES", '{"acks": 1}', "acks is set by Flagpost"),
        ("FLAGPOST_KAFKA__TOPIC", "", "topic is empty"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, says: str
) -> None:
    monkeypatch.setenv("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)

    with pytest.raises(ValueError, match=says):
        Publisher.from_env()
