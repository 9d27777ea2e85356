"""The rules beyond single keys: files, variables, regions, needs, contradictions, secrets in texts."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from flagpost_consumer.core.policy import Policy
from flagpost_consumer.settings import Needs, Settings, SettingsError, engine_policy, load_settings
from flagpost_settings.owned_properties import OWNED_PROPERTIES

CONSUME = Needs.KAFKA | Needs.PENDO
HUNTER = "hunter2-hunter2"
COMPLETE = {
    "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "FLAGPOST_PENDO__TRACK_SECRET": HUNTER,
    "FLAGPOST_PENDO__INTEGRATION_KEY": "key",
}


def _load(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "flagpost.yaml"
    path.write_text(text)
    return load_settings(path, environ or {}, Needs.NOTHING)


def _refusal(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        _load(text, tmp_path, environ)
    return str(caught.value)


def _refused(environ: dict[str, str], needs: Needs = Needs.NOTHING) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, environ, needs)
    return str(caught.value)


# The file


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "kafka:\n", "kafka:\n  schema_registry:\n"])
def test_an_empty_file_or_section_means_the_defaults(text: str, tmp_path: Path) -> None:
    assert _load(text, tmp_path) == Settings()


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    refusal = _refusal("pendo:\n  region: us\n  region: eu\n", tmp_path)
    assert "pendo.region" in refusal
    assert "lines 2 and 3" in refusal


def test_a_key_that_yaml_takes_for_a_boolean_is_refused(tmp_path: Path) -> None:
    assert "mapping.events.on" in _refusal("mapping: {events: {on: x}}", tmp_path)


def test_every_problem_is_reported_at_once_one_line_each(tmp_path: Path) -> None:
    refusal = _refusal(
        "kafka: {topic: 1, tpoic: x}\npendo: {region: mars}\n", tmp_path, {"FLAGPOST_LOG__LEVEL": "x"}
    )
    assert [line.split(" ")[0] for line in refusal.splitlines()] == [
        "kafka.topic",
        "kafka.tpoic",
        "pendo.region",
        "log.level",
    ]


@pytest.mark.parametrize(
    "text", ["[1]", "text", "a: b: c", "a: [", "pendo: &p\n  self: *q\n", "a: 2026-13-45"]
)
def test_a_file_that_is_not_a_map_is_named(text: str, tmp_path: Path) -> None:
    assert str(tmp_path / "flagpost.yaml") in _refusal(text, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "none.yaml", {}, Needs.NOTHING)


def test_a_file_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    assert "pendo.self" in _refusal("pendo: &p\n  self: *p\n", tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "!!int ''",
        "!!bool maybe",
        "!!timestamp yesterday",
        "1" + ":1" * 200 + ".5",
        "2026-13-01",
        "[" * 2000 + "]" * 2000,
        "\x00",
    ],
)
def test_text_that_yaml_cannot_read_is_reported_with_its_file(value: str, tmp_path: Path) -> None:
    refusal = _refusal(f"kafka: {{topic: {value}}}", tmp_path)
    assert refusal.startswith(str(tmp_path / "flagpost.yaml"))
    assert "is not YAML" in refusal


def test_anchors_within_anchors_cost_no_more_than_their_lines(tmp_path: Path) -> None:
    lines = [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 60)]
    assert "a59" in _refusal("\n".join(["a0: &a0 {x: 1}", *lines]), tmp_path)


def test_a_section_that_is_not_a_map_is_named(tmp_path: Path) -> None:
    refusal = _refusal("delivery: 3", tmp_path, {"FLAGPOST_DELIVERY__MAX_PENDING": "5"})
    assert refusal.startswith("delivery (")


# The environment


def test_a_variable_of_json_that_nests_too_deep_is_named() -> None:
    environ = {"FLAGPOST_KAFKA__PROPERTIES": "[" * 100_000}
    assert _refused(environ).startswith("kafka.properties (FLAGPOST_KAFKA__PROPERTIES)")


@pytest.mark.parametrize("url", ["https://h\\x", "https://a..b", "https://h%", "https://\u0130"])
def test_an_impossible_host_is_refused(url: str) -> None:
    assert _refused({"FLAGPOST_PENDO__TRACK_URL": url}).startswith("pendo.track_url")
    assert _refused({"FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL": url}).startswith("kafka.schema_registry.url")


@pytest.mark.parametrize("url", ["http://[x", "http://r:99999", "http://:8081", "https://?"])
def test_a_registry_that_is_not_a_url_is_named(url: str) -> None:
    refusal = _refused({"FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL": url})
    assert refusal.startswith("kafka.schema_registry.url")
    assert "such as http://registry:8081" in refusal


@pytest.mark.parametrize("key", ["DEDUPE__TTL_SECONDS", "METADATA__LINGER_SECONDS", "DELIVERY__MAX_PENDING"])
def test_numbers_that_can_only_be_a_mistake_are_refused(key: str) -> None:
    assert "less than or equal to" in _refused({f"FLAGPOST_{key}": "1" + "0" * 300})


@pytest.mark.parametrize(
    "name",
    [
        "FLAGPOST_CONFIG",
        "FLAGPOST_CONSUMER_PORT",
        "FLAGPOST_CONSUMER_SERVICE_HOST",
        "FLAGPOST_CONSUMER_PORT_8080_TCP_ADDR",
        "FLAGPOST_kafka__topic",
        "FLAGPOST__TOPIC",
        "XFLAGPOST_KAFKA__TOPIC",
    ],
)
def test_other_variables_are_not_settings(name: str) -> None:
    assert load_settings(None, {name: "tcp://10.0.0.1:8080"}, Needs.NOTHING) == Settings()


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    refusal = _refused({"FLAGPOST_KAFKA__BOOTSTRAP_SERVER": HUNTER})
    assert "FLAGPOST_KAFKA__BOOTSTRAP_SERVER" in refusal
    assert "did you mean kafka.bootstrap_servers?" in refusal
    assert HUNTER not in refusal


def test_a_key_of_a_map_is_set_with_the_whole_map() -> None:
    refusal = _refused({"FLAGPOST_KAFKA__PROPERTIES__SASL": HUNTER})
    assert "as JSON in FLAGPOST_KAFKA__PROPERTIES" in refusal
    assert HUNTER not in refusal


def test_the_variable_of_a_key_wins_over_that_of_its_section() -> None:
    registry = load_settings(
        None,
        {
            "FLAGPOST_KAFKA__SCHEMA_REGISTRY": '{"url": "http://a", "username": "u"}',
            "FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL": "http://b",
        },
        Needs.NOTHING,
    ).kafka.schema_registry
    assert (registry.url, registry.username) == ("http://b", "u")


def test_a_variable_leaves_the_other_keys_of_the_file(tmp_path: Path) -> None:
    settings = _load("kafka: {topic: t}", tmp_path, {"FLAGPOST_KAFKA__GROUP_ID": "g"})
    assert (settings.kafka.topic, settings.kafka.group_id) == ("t", "g")


# Sections of other programs


def test_the_sections_of_gateway_and_publisher_are_not_checked(tmp_path: Path) -> None:
    text = "gateway: {write_keys: 3, webhook_topic: [x], any: thing}\npublisher: 7\n"
    environ = {"FLAGPOST_GATEWAY__MAX_BODY_BYTES": "x", "FLAGPOST_PUBLISHER__SERVICE": "checkout"}
    assert _load(text, tmp_path, environ) == Settings()


def test_the_webhook_topic_is_checked_if_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "flagpost.yaml"
    path.write_text("gateway: {write_keys: 3, webhook_topic: hooks}")
    assert load_settings(path, {}, Needs.WEBHOOK_TOPIC).gateway.webhook_topic == "hooks"
    refusal = _refused({"FLAGPOST_GATEWAY__WEBHOOK_TOPIC": "a b"}, Needs.WEBHOOK_TOPIC)
    assert refusal.startswith("gateway.webhook_topic (FLAGPOST_GATEWAY__WEBHOOK_TOPIC)")


@pytest.mark.parametrize(
    "servers",
    [
        "http://x:9092",
        "127.0.0.1:1,,",
        ",",
        "a:b",
        "a:0",
        "a:65536",
        "a b:1",
        "kafka:9092/topic",
        "me@kafka:9092",
    ],
)
def test_addresses_of_brokers_that_mean_nothing_are_refused(servers: str) -> None:
    """Before the fix, librdkafka ignored them, and commands waited for a Kafka that nobody had named."""
    told = _refused({"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": servers}, Needs.KAFKA)
    assert told.startswith("kafka.bootstrap_servers (FLAGPOST_KAFKA__BOOTSTRAP_SERVERS): ")
    assert "it should be host:port, or several with commas: host:port,host:port" in told


@pytest.mark.parametrize(
    "servers",
    ["kafka", "kafka:9092", "a:1, b:2", "[::1]:9092", "SASL_SSL://b-1.kafka.eu-west-1.amazonaws.com:9098"],
)
def test_addresses_of_brokers_are_accepted(servers: str) -> None:
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": servers}
    assert load_settings(None, environ, Needs.KAFKA).kafka.bootstrap_servers == servers


# Needs


def test_without_needs_no_setting_is_required() -> None:
    assert load_settings(None, {}, Needs.NOTHING) == Settings()


@pytest.mark.parametrize(
    ("needs", "keys"),
    [
        (Needs.KAFKA, {"kafka.bootstrap_servers"}),
        (CONSUME, {"kafka.bootstrap_servers", "pendo.track_secret", "pendo.integration_key"}),
    ],
)
def test_the_settings_that_a_command_needs_are_named(needs: Needs, keys: set[str]) -> None:
    assert {line.split(":")[0] for line in _refused({}, needs).splitlines()} == keys


def test_the_integration_key_is_needed_only_to_send_metadata() -> None:
    environ = {**COMPLETE, "FLAGPOST_DECISIONS__VISITOR_METADATA": "false"}
    del environ["FLAGPOST_PENDO__INTEGRATION_KEY"]
    assert load_settings(None, environ, CONSUME).pendo.integration_key_source is None


def test_a_secret_may_be_a_file_instead(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{HUNTER}\n")
    environ = {**COMPLETE, "FLAGPOST_PENDO__TRACK_SECRET_FILE": str(file)}
    del environ["FLAGPOST_PENDO__TRACK_SECRET"]
    source = load_settings(None, environ, CONSUME).pendo.track_secret_source
    assert source is not None
    assert source.current() == HUNTER


def test_a_secret_file_that_is_missing_stops_the_commands_that_need_it(tmp_path: Path) -> None:
    environ = {**COMPLETE, "FLAGPOST_PENDO__INTEGRATION_KEY_FILE": str(tmp_path / "none")}
    del environ["FLAGPOST_PENDO__INTEGRATION_KEY"]
    assert "pendo.integration_key_file" in _refused(environ, CONSUME)
    assert load_settings(None, environ, Needs.KAFKA).pendo.integration_key_source is not None


def test_a_kafka_property_file_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    environ = {**COMPLETE, "FLAGPOST_KAFKA__PROPERTIES_FILES": f'{{"sasl.password": "{file}"}}'}
    assert "kafka.properties_files.sasl.password" in _refused(environ, Needs.KAFKA)
    file.write_text(f"{HUNTER}\n")
    properties = load_settings(None, environ, Needs.KAFKA).kafka.client_properties()
    assert properties == {"sasl.password": HUNTER, "bootstrap.servers": "127.0.0.1:9092"}


# Contradictions


@pytest.mark.parametrize(
    "key", ["pendo.track_secret", "pendo.integration_key", "kafka.schema_registry.password"]
)
def test_a_secret_given_twice_is_refused(key: str) -> None:
    variable = "FLAGPOST_" + key.upper().replace(".", "__")
    refusal = _refused(
        {variable: HUNTER, f"{variable}_FILE": "/x", "FLAGPOST_KAFKA__SCHEMA_REGISTRY__USERNAME": "u"}
    )
    assert refusal.startswith(f"{key}_file ({variable}_FILE)")
    assert f"{key} is given as well" in refusal
    assert HUNTER not in refusal


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in OWNED_PROPERTIES if "*" not in name),
        "group.instance.id",
        "group.remote.assignor",
        "enable.auto.commit",
        "enable.auto.offset.store",
    ],
)
@pytest.mark.parametrize("key", ["properties", "properties_files"])
def test_properties_that_flagpost_owns_are_refused_by_name(name: str, key: str, tmp_path: Path) -> None:
    refusal = _refusal(f"kafka: {{{key}: {{{name}: {HUNTER}}}}}", tmp_path)
    assert f"kafka.{key}.{name}" in refusal
    assert "Flagpost sets this" in refusal


@pytest.mark.parametrize("name", ["error_cb", "oauth_cb", "logger", "default.topic.config"])
def test_properties_that_take_code_are_refused_by_name(name: str, tmp_path: Path) -> None:
    refusal = _refusal(f"kafka: {{properties: {{{name}: x}}}}", tmp_path)
    assert f"kafka.properties.{name}" in refusal
    assert "leave this librdkafka property out: " in refusal


def test_a_property_given_twice_is_refused(tmp_path: Path) -> None:
    text = "kafka: {properties: {sasl.password: x}, properties_files: {sasl.password: /x}}"
    assert "kafka.properties.sasl.password is given as well" in _refusal(text, tmp_path)


def test_properties_of_every_scalar_kind_reach_librdkafka_as_text(tmp_path: Path) -> None:
    settings = _load("kafka: {properties: {a: x, b: 5, c: 1.5, d: true}}", tmp_path)
    assert settings.kafka.properties == {"a": "x", "b": "5", "c": "1.5", "d": "true"}


@pytest.mark.parametrize(
    ("request_s", "session_s", "fits"), [(22.4, 45, True), (22.5, 45, False), (10, 20, False)]
)
def test_a_request_may_take_less_than_half_a_session(
    request_s: float, session_s: float, *, fits: bool
) -> None:
    environ = {
        "FLAGPOST_PENDO__REQUEST_TIMEOUT_SECONDS": str(request_s),
        "FLAGPOST_KAFKA__SESSION_TIMEOUT_SECONDS": str(session_s),
    }
    if fits:
        assert load_settings(None, environ, Needs.NOTHING).pendo.request_timeout_seconds == request_s
    else:
        refusal = _refused(environ)
        assert "pendo.request_timeout_seconds (FLAGPOST_PENDO__REQUEST_TIMEOUT_SECONDS)" in refusal
        assert f"half of kafka.session_timeout_seconds, which is {session_s}" in refusal


@pytest.mark.parametrize(
    "key", ["topic", "ledger_topic", "dead_letter_topic", "suppressions_topic", "impressions_topic"]
)
def test_two_topics_of_one_name_are_refused(key: str, tmp_path: Path) -> None:
    other = "ledger_topic" if key == "topic" else "topic"
    refusal = _refusal(f"kafka: {{{key}: same, {other}: same}}", tmp_path)
    assert f"kafka.{key} (" in refusal
    assert f"kafka.{other} (" in refusal


# URLs


@pytest.mark.parametrize(
    ("region", "api", "track"),
    [
        ("us", "https://app.pendo.io", "https://data.pendo.io/data/track"),
        ("us1", "https://us1.app.pendo.io", "https://us1.data.pendo.io/data/track"),
        ("eu", "https://app.eu.pendo.io", "https://data.eu.pendo.io/data/track"),
        ("jp", "https://app.jpn.pendo.io", "https://data.jpn.pendo.io/data/track"),
        ("au", "https://app.au.pendo.io", "https://data.au.pendo.io/data/track"),
    ],
)
def test_a_region_sets_both_urls(region: str, api: str, track: str) -> None:
    urls = load_settings(None, {"FLAGPOST_PENDO__REGION": region}, Needs.NOTHING).pendo.urls
    assert (urls.api, urls.track) == (api, track)


def test_urls_given_outright_win_over_the_region() -> None:
    environ = {"FLAGPOST_PENDO__REGION": "eu", "FLAGPOST_PENDO__TRACK_URL": "https://app.pendo.io/data/track"}
    urls = load_settings(None, environ, Needs.NOTHING).pendo.urls
    assert (urls.api, urls.track) == ("https://app.eu.pendo.io", "https://app.pendo.io/data/track")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.8.8.8", "localhost", "[::1]:80", "pendo.localhost"])
def test_plain_http_to_loopback_is_accepted(host: str) -> None:
    url = f"http://{host}/data/track"
    assert load_settings(None, {"FLAGPOST_PENDO__TRACK_URL": url}, Needs.NOTHING).pendo.urls.track == url


@pytest.mark.parametrize("key", ["TRACK_URL", "API_URL"])
@pytest.mark.parametrize(
    "host", ["pendo.example", "10.0.0.1", "localhost.example", "[2001:db8::1]", "127.0.0.1.nip.io"]
)
def test_plain_http_to_others_must_be_allowed(key: str, host: str) -> None:
    environ = {f"FLAGPOST_PENDO__{key}": f"http://{host}/"}
    assert "pendo.allow_insecure_http" in _refused(environ)
    allowed = {**environ, "FLAGPOST_PENDO__ALLOW_INSECURE_HTTP": "true"}
    assert load_settings(None, allowed, Needs.NOTHING).pendo.allow_insecure_http


@pytest.mark.parametrize(
    "url", ["data.pendo.io", "file:///x", "https://", "http://[::1", "https://a b", "https://x:y/"]
)
def test_a_value_that_is_not_a_url_is_refused(url: str) -> None:
    assert _refused({"FLAGPOST_PENDO__TRACK_URL": url}).startswith(
        "pendo.track_url (FLAGPOST_PENDO__TRACK_URL)"
    )


# Secrets in texts


@pytest.mark.parametrize(
    "text",
    [
        f"pendo: {{track_secret: [{HUNTER}]}}",
        f"pendo: {{track_secret: {{x: {HUNTER}}}}}",
        f"pendo: {{track_secrets: {HUNTER}}}",
        f"pendo: {HUNTER}",
        f"pendo: [{HUNTER}]",
        f"pendo: {{track_secret: *{HUNTER}}}",
        f"pendo: {{track_secret: !{HUNTER} x}}",
        f"pendo: {{track_secret: %{HUNTER}}}",
        f'pendo: {{track_secret: "{HUNTER}}}',
        f"pendo: {{track_url: 'http://user:{HUNTER}@pendo.example/'}}",
        f"kafka: {{properties: {{sasl.password: [{HUNTER}]}}}}",
        f"kafka: {{properties: {HUNTER}}}",
        f"kafka: {{properties: {{transactional.id: {HUNTER}}}}}",
        f"kafka: {{schema_registry: {HUNTER}}}",
        f"kafka: {{schema_registry: {{password: [{HUNTER}]}}}}",
        f"kafka: {{schema_registry: {{url: 'http://user:{HUNTER}@registry'}}}}",
    ],
)
def test_no_problems_text_shows_a_secret(text: str, tmp_path: Path) -> None:
    path = tmp_path / "flagpost.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {}, Needs.NOTHING)
    assert HUNTER not in repr(caught.value)
    assert HUNTER not in "".join(traceback.format_exception(caught.value))


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    text = f"kafka: {{bootstrap_servers: a, properties: {{sasl.password: {HUNTER}}}}}"
    settings = _load(text, tmp_path, COMPLETE)
    assert settings.kafka.client_properties()["sasl.password"] == HUNTER
    assert HUNTER not in repr(settings) + str(settings)


# The engine's policy


def test_the_engines_policy_comes_from_the_settings() -> None:
    environ = {
        **COMPLETE,
        "FLAGPOST_PENDO__MAX_CONNECTIONS": "3",
        "FLAGPOST_DELIVERY__MAX_PENDING": "4",
        "FLAGPOST_DECISIONS__FLAGS_ALLOW": '["a*"]',
    }
    policy = engine_policy(load_settings(None, environ, CONSUME))
    assert policy.limits.max_connections == 3
    assert policy.delivery.max_pending == 4
    assert policy.decisions.flags_allow == ["a*"]
    assert policy.can_send_metadata


def test_the_defaults_are_the_engines_except_for_the_missing_key() -> None:
    assert engine_policy(Settings()) == Policy(can_send_metadata=False)
