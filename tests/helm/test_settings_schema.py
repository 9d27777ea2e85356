"""The chart's schema of `config` and of variables is generated from the programs' settings, and as strict as those.

Values that the chart accepts are given to the programs as they would find them; the chart must refuse whatever the
programs refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from example_counts import examples
from flagpost_consumer.settings import Needs, load_settings
from flagpost_consumer.settings import Settings as ConsumerSettings
from flagpost_publisher.gateway.settings import Settings as GatewaySettings
from flagpost_publisher.gateway.settings import load_settings as load_gateway_settings
from flagpost_settings.owned_properties import OWNED_PROPERTIES
from flagpost_settings.problems import SettingsError
from helm.mounted import Mounted, mounted
from helm.rendering import Refused, Rendered, rendered
from settings_schema.config import SECRET
from settings_schema.files import PATH, text

KeyPath = tuple[str, ...]

VALUES: Final[dict[str, Any]] = {"gateway": {"enabled": True}, "topics": {"partitions": 1000}}
KAFKA: Final = ("kafka", "bootstrap_servers")


def _annotations(model: type[BaseModel], above: KeyPath = ()) -> dict[KeyPath, str]:
    """Every setting of a program, with its annotation as a text."""
    found: dict[KeyPath, str] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _annotations(field.annotation, (*above, name))
        else:
            found[*above, name] = str(field.annotation)
    return found


SETTINGS: Final = _annotations(ConsumerSettings) | _annotations(GatewaySettings)
SECRETS: Final = {path for path, kind in SETTINGS.items() if "Secret" in kind}
OPEN: Final = {path for path in SETTINGS if path not in SECRETS and not path[-1].endswith("_file")}
"""The settings to test. Those that name files are left out: the chart cannot know whether a file exists."""

WORDS: Final = st.sampled_from(
    ["", " ", "=", "<<", "~", "null", "on", "No", "1e3", "0x10", "1_000", "12:30:45", "2026-01-01",
     "{flag_key}", "{flag_key",
     "{x}", "a{flag_key}{flag_key}b", "{flag_key}}", "\x00", "a\x00b", "a\nb", "\t", "\x85", "\u2028", "\ufeff",
     "us", "eu", "drop",
     "trim", "consumer", "json", "debug", "anonymous_id", "flagpost.events", "flagpost.ledger", "x-key",
     "x key", "none",
     "http://relay.example", "https://relay.example:8443/track?x=1", "http://localhost:1", "http://127.0.0.1/x",
     "https://[::1]:1",
     "https://[::1", "https://[1::2::3]", "https://u:p@h", "https://h:99999", "https://h/#x", "HTTPS://H",
     "https://h h",
     "https://h/\u00e9", "https://\u00e9.example", "https://-", "https://a..b", "http://proxy:3128",
     "http://p:3128/x", "socks5://p"]
)  # fmt: skip
TEXTS: Final = WORDS | st.text(max_size=12) | st.text("abc.-*{}_:/", min_size=1, max_size=8)
NUMBERS: Final = (
    st.integers(-10, 100_000)
    | st.floats(0, 100, allow_subnormal=False)
    | st.floats(-1e7, 1e10)
    | st.sampled_from([0, 0.0001, 0.00009, 1e-9, 1.5e-7, 2**31, 10**9, 10**9 + 1, 65535, 65536, 1023, 1024])
    | st.sampled_from([604_800, 604_801, 22.5])
)  # fmt: skip
PROPERTIES: Final = st.sampled_from(
    [*(name.replace("*", "x") for name in OWNED_PROPERTIES), "client.id", "ssl.ca.location", "error_cb",
     "logger", "acks ", "group.\nid",
     "SASL.PASSWORD", "sasl.username", ""]
)  # fmt: skip
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def _fitting(path: KeyPath) -> st.SearchStrategy[tuple[KeyPath, object]]:
    """Values of a key's own type, so that more than the types is tested."""
    kind = SETTINGS[path]
    kinds: list[st.SearchStrategy[object]] = [
        values
        for word, values in (
            ("float", NUMBERS), ("int", NUMBERS), ("bool", st.booleans()), ("list", st.lists(TEXTS, max_size=2)),
            ("dict", st.dictionaries(PROPERTIES | TEXTS, TEXTS | NUMBERS, max_size=2)), ("str", TEXTS),
            ("None", st.none()),
        )
        if word in kind
    ]  # fmt: skip
    return st.tuples(st.just(path), st.one_of(*kinds, TEXTS))


HASH: Final = "0123456789abcdef" * 4
KEYS: Final = st.dictionaries(
    st.sampled_from(["web", "key-1", "key-x", "a b", "", "x" * 65, "a/b"]),
    st.fixed_dictionaries(
        {},
        optional={
            "key_sha256": st.sampled_from([HASH, HASH[1:], ""]),
            "types": st.lists(st.sampled_from(["track", "page", "identify", "pages"]), max_size=2)
            | st.none(),
            "events_per_second": NUMBERS | st.none(),
            "origins": st.lists(
                st.sampled_from(["https://a.example", "https://a.example/x", "a"]), max_size=2
            ),
            "name": TEXTS,
        },
    )
    | ANYTHING,
    max_size=2,
)
"""The gateway's named keys: maps of maps, which ANYTHING would not find by chance."""

ENTRIES: Final = st.lists(
    st.tuples(st.just(("gateway", "keys")), KEYS)
    | st.sampled_from(sorted(OPEN)).flatmap(_fitting)
    | st.tuples(
        st.sampled_from(sorted({*OPEN, *(path[:1] for path in OPEN), ("kafka", "no_such")})), ANYTHING
    ),
    max_size=2,
)


@given(ENTRIES)
@settings(deadline=None, max_examples=examples(200))
@example([(("pendo", "request_timeout_seconds"), 22.5)])
@example([(("gateway", "admin_port"), 8081)])
@example([(("admin", "host"), "\x7f")])
@example([(("privacy", "ledger_ids"), "keyed_hash")])
@example([(("gateway", "trusted_proxies"), [""])])
@example([(("gateway", "trusted_proxies"), ["10.0.0.0/33"])])
@example([(("gateway", "keys"), {"web": {}})])
@example([(("gateway", "keys"), {"key-1": {"key_sha256": HASH}})])
@example([(("gateway", "keys"), {"a b": {"key_sha256": HASH}})])
@example(
    [
        (
            ("gateway", "keys"),
            {"web": {"key_sha256": HASH, "origins": ["https://a.example"], "types": ["group"]}},
        )
    ]
)
@example([(("decisions", "event_name"), "a\ufeff")])
@example([(("mapping", "events"), {"<<": "a"})])
@example([(("kafka", "topic"), "flagpost.pendo-webhooks")])
@example([(("kafka", "properties"), {"acks": 1})])
@example([(("kafka", "properties"), {"a": 1}), (("kafka", "properties_files"), {"a": "/b"})])
def test_the_chart_refuses_what_the_programs_refuse(entries: list[tuple[KeyPath, object]]) -> None:
    try:
        release = rendered({**VALUES, "config": _tree(entries)})
    except Refused:
        return
    assert _refusals(release) == []


@given(
    st.lists(
        st.sampled_from(sorted(OPEN)).flatmap(_fitting),
        min_size=10,
        max_size=12,
        unique_by=lambda entry: entry[0],
    )
)
@settings(deadline=None, max_examples=examples(40))
@example([(("kafka", "schema_registry", "username"), None)])
@example([(("kafka", "properties"), {"linger.ms": 5, "enable.ssl.certificate.verification": True})])
def test_the_chart_accepts_what_the_programs_accept(
    mounted_once: Mapping[Loader, Mounted], entries: list[tuple[KeyPath, object]]
) -> None:
    """Except for the values that STRICTER describes; and the programs accept what it renders.

    What the programs accept together is rendered at once: the chart needs ten times the CPU time of the programs.
    """
    accepted: list[tuple[KeyPath, object]] = []
    for path, value in entries:
        more = [*accepted, (path, value)]
        if not _is_stricter(path, value) and not _refused_by_programs(more, mounted_once):
            accepted = more
    assert _refusals(rendered({**VALUES, "config": _tree(accepted)})) == []


STRICTER: Final = (
    re.compile(
        "=|<<|[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"
    ),  # texts that YAML 1.1 reads as something else
    re.compile(
        r"[\x00-\x20]|[^\x00-\x7f]|^[A-Z]+://|[#]|^https?:///"
    ),  # URLs with spaces, other letters than ASCII, a scheme in capitals, a fragment, or no host
)


def _is_stricter(path: KeyPath, value: object) -> bool:
    """Whether a ConfigMap cannot hold a value as it is meant, or the value would not work in a pod."""
    if path[-1].endswith("port"):
        return isinstance(value, int) and value < 1024
    if isinstance(value, float | int) and not isinstance(value, bool):
        return 0 < value < 0.0001
    if path == ("kafka", "properties") and re.search("(?i)password", str(value)):
        return True
    return any(pattern.search(text) for pattern in STRICTER for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    """A value and all that is in it, as texts; the text of a list shows some characters as escapes."""
    yield str(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _tree(entries: list[tuple[KeyPath, object]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in entries:
        here = tree
        for part in path[:-1]:
            below = here.get(part)
            here[part] = here = below if isinstance(below, dict) else {}
        here[path[-1]] = value
    return tree


def _refusals(release: Rendered) -> list[str]:
    """The problems that the programs report about a release's settings, except those about files."""
    found: list[str] = []
    with TemporaryDirectory() as directory:
        for component, load in PROGRAMS:
            root = Path(directory) / component
            files = mounted(release, release.pod_spec(component), release.container(component), root)
            try:
                load(files.config, files.environ)
            except SettingsError as error:
                found += [problem for problem in map(str, error.problems) if not _about_a_file(problem)]
    return found


def _load_consumer(config: Path, environ: dict[str, str]) -> object:
    return load_settings(config, environ, Needs.KAFKA | Needs.PENDO | Needs.WEBHOOK_TOPIC)


Loader = Callable[[Path, dict[str, str]], object]
PROGRAMS: Final[tuple[tuple[str, Loader], ...]] = (
    ("consumer", _load_consumer),
    ("gateway", load_gateway_settings),
)


def _about_a_file(problem: str) -> bool:
    return "_file" in problem and ("cannot be read" in problem or "is not a path" in problem)


@pytest.fixture(scope="module")
def mounted_once(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Loader, Mounted]:
    """What each program finds in its container, of a release without settings."""
    release, root = rendered(VALUES), tmp_path_factory.mktemp("mounted")
    return {
        load: mounted(release, release.pod_spec(component), release.container(component), root / component)
        for component, load in PROGRAMS
    }


def _refused_by_programs(
    entries: list[tuple[KeyPath, object]], mounted_once: Mapping[Loader, Mounted]
) -> bool:
    """Whether the programs refuse values that are written into the YAML file by hand."""
    for load, files in mounted_once.items():
        _write(files.config, entries)
        try:
            load(files.config, files.environ)
        except SettingsError:
            return True
    return False


def _write(config: Path, entries: list[tuple[KeyPath, object]]) -> None:
    tree = _tree([(KAFKA, "kafka:9092"), *entries])
    config.write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=False))


def test_the_schema_is_generated_from_the_programs_settings() -> None:
    assert PATH.read_text() == text(PATH.read_text()), "run: make chart-schema"


@pytest.mark.parametrize(
    "path", sorted(SECRETS - {("pendo", "proxy"), ("kafka", "schema_registry", "proxy")})
)
def test_no_secret_may_be_in_a_config_map(path: KeyPath) -> None:
    value: Any = ["x"] if SETTINGS[path].startswith("list") else "x"
    with pytest.raises(Refused) as refusal:
        rendered({"config": _tree([(path, value)])})
    assert f"/config/{'/'.join(path)}" in str(refusal.value)
    assert str(SECRET["const"]) in str(refusal.value)


def test_no_named_key_may_be_in_a_config_map() -> None:
    with pytest.raises(Refused) as refusal:
        rendered({"config": {"gateway": {"keys": {"web": {"key": "x" * 20}}}}})
    assert "/config/gateway/keys/web/key" in str(refusal.value)
    assert str(SECRET["const"]) in str(refusal.value)


@pytest.mark.parametrize("section", ["pendo", "kafka.schema_registry"])
def test_a_proxy_is_accepted_unless_it_has_a_password(section: str) -> None:
    path = (*section.split("."), "proxy")
    for proxy in ("none", "http://proxy.example:3128"):
        given = yaml.safe_load(
            rendered({"config": _tree([(path, proxy)])}).one("ConfigMap")["data"]["flagpost.yaml"]
        )
        assert proxy in str(given)
    with pytest.raises(Refused, match="proxy"):
        rendered({"config": _tree([(path, "http://user:password@proxy.example:3128")])})


@pytest.mark.parametrize(
    "name",
    ["sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "SSL.KEY.PEM",
     "sasl.oauthbearer.client.secret",
     "sasl.oauthbearer.config", "sasl.oauthbearer.assertion.private.key.pem",
     "sasl.oauthbearer.assertion.private.key.passphrase",
     "sasl.oauthbearer.assertion.file", "sasl.jaas.config"],
)  # fmt: skip
def test_librdkafka_properties_that_are_secrets_are_refused(name: str) -> None:
    for values in (
        {"config": {"kafka": {"properties": {name: "hunter2"}}}},
        {"kafkaUsers": {"consumer": {"properties": {name: "hunter2"}}}},
    ):
        with pytest.raises(Refused) as refusal:
            rendered(values)
        assert f"{name} would be readable by many" in str(refusal.value)
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ({"name": "GOMAXPROCS", "value": 2}, "/extraEnv/0/value"),
        ({"name": "no name", "value": "x"}, "/extraEnv/0/name"),
        ({"name": "X", "value": "x", "from": "y"}, "'from'"),
        ({"name": "X", "value": "x", "valueFrom": {"secretKeyRef": {}}}, "/extraEnv/0"),
        ({"name": "FLAGPOST_PENDO_REGION", "value": "eu"}, "/extraEnv/0/name"),
        ({"name": "FLAGPOST_PENDO__REGOIN", "value": "eu"}, "/extraEnv/0/name"),
        ({"name": "FLAGPOST_PENDO__TRACK_SECRET", "value": "x"}, "valueFrom"),
        ({"name": "FLAGPOST_CONFIG", "value": "/x"}, "/extraEnv/0/name"),
        ({"name": "FLAGPOST_ADMIN__PORT", "value": "9"}, "set config.admin.port"),
        ({"name": "FLAGPOST_DELIVERY__DRAIN_SECONDS", "value": "9"}, "set config.delivery.drain_seconds"),
        ({"name": "FLAGPOST_PENDO__TRACK_SECRET_FILE", "value": "/x"}, "which has it already"),
        ({"name": "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "value": "k:1"}, "set networkPolicy.kafkaPorts"),
        ({"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, "add it to networkPolicy.extraEgress"),
    ],
)
def test_variables_are_checked(variable: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as refusal:
        rendered({"extraEnv": [variable]})
    assert told in str(refusal.value)


def test_a_variable_that_is_set_twice_is_refused() -> None:
    twice = {"name": "TZ", "value": "UTC"}
    with pytest.raises(Refused, match="extraEnv gives TZ to the consumer"):
        rendered({"extraEnv": [twice], "consumer": {"extraEnv": [twice]}})


def test_a_required_setting_may_come_from_a_variable() -> None:
    servers = {"name": KAFKA_VARIABLE, "valueFrom": {"configMapKeyRef": {"name": "kafka", "key": "servers"}}}
    values = {"config": {"kafka": {"bootstrap_servers": None}}, "networkPolicy": {"kafkaPorts": [9092]}}
    assert servers in rendered({**values, "extraEnv": [servers]}).container("consumer")["env"]
    with pytest.raises(Refused, match=r"config\.kafka\.bootstrap_servers is required"):
        rendered(values)


KAFKA_VARIABLE: Final = "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"secrets": {"consumer": {"trackSecret": ""}}}, "secrets.consumer.trackSecret is empty"),
        ({"secrets": {"consumer": {"integrationKey": ""}}}, "secrets.consumer.integrationKey is empty"),
        (
            {"gateway": {"enabled": True}, "secrets": {"gateway": {"writeKeys": ""}}},
            "secrets.gateway.writeKeys is empty",
        ),
        (
            {"config": {"pendo": {"track_secret_file": "/x"}}},
            "config.pendo.track_secret_file is set, and so is",
        ),
        ({"config": {"pendo": {"track_url": "http://relay"}}}, "config.pendo.track_url: plain http"),
        (
            {
                "config": {"kafka": {"schema_registry": {"url": "http://registry", "username": "u"}}},
                "secrets": {"consumer": {"registryPassword": "p"}},
            },
            "config.kafka.schema_registry.url: plain http",
        ),
        (
            {"secrets": {"consumer": {"registryPassword": "p"}}},
            "config.kafka.schema_registry.username is required",
        ),
        (
            {"kafkaUsers": {"consumer": {"secretProperties": {"sasl.password": "p"}}}},
            "kafkaUsers.consumer has secretProperties and kafkaUsers.topics has none",
        ),
        (
            {
                "topics": {"create": False},
                "config": {"kafka": {"properties": {"a.b": "c"}}},
                "kafkaUsers": {"consumer": {"secretProperties": {"a.b": "p"}}},
            },
            "a.b is in kafkaUsers.consumer.secretProperties",
        ),
        ({"config": {"kafka": {"topic": "t", "ledger_topic": "t"}}}, "are the same topic, t"),
        (
            {"config": {"gateway": {"keys": {"web": {}}}}},
            "config.gateway.keys.web: one of key_file, key_sha256",
        ),
        (
            {
                "config": {"gateway": {"keys": {"a": {"key_sha256": HASH}}}},
                "secrets": {"gateway": {"keys": {"a": "k"}}},
            },
            "config.gateway.keys.a: one of key_file, key_sha256",
        ),
        ({"secrets": {"gateway": {"keys": {"key-1": "k"}}}}, "secrets.gateway.keys has a name"),
        (
            {"config": {"pendo": {"request_timeout_seconds": 25}}},
            "config.pendo.request_timeout_seconds is 25",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as refusal:
        rendered(values)
    assert told in str(refusal.value)
