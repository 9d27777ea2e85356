"""Which proxy requests use, which certificates are trusted, and which settings are refused at the start."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from certificates import Authority
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.settings import Needs
from flagpost_consumer.settings import load_settings as load_consumers
from flagpost_publisher import Publisher
from flagpost_publisher.gateway.settings import load_settings as load_gateways
from flagpost_settings.outbound import Outbound, Proxy, bypasses
from flagpost_settings.problems import SettingsError

PENDO = "https://data.pendo.io/data/track"
SECRET = "proxys-password"


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, PENDO, None),
        ({"HTTPS_PROXY": "http://p:3128"}, PENDO, "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, PENDO, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p"}, PENDO, "http://p:80"),
        ({"HTTPS_PROXY": "http://[::1]:3128/"}, PENDO, "http://[::1]:3128"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:1"}, PENDO, "http://lower:1"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": ""}, PENDO, "http://upper:1"),
        ({"HTTPS_PROXY": ""}, PENDO, None),
        ({"HTTP_PROXY": "http://p:1"}, PENDO, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://registry:8081", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "https://127.0.0.1:8443", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://localhost:8443", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "pendo.io"}, PENDO, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "pendo.io"}, PENDO, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "endo.io"}, PENDO, "http://p:1"),
    ],
)
def test_the_environments_proxy(environ: Mapping[str, str], url: str, expected: str | None) -> None:
    proxy = Outbound("pendo").proxy_to(url, environ)
    assert (proxy and proxy.url) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("*", "pendo.io", 443, True),
        ("pendo.io", "pendo.io", 443, True),
        ("pendo.io", "data.pendo.io", 443, True),
        (".pendo.io", "data.pendo.io", 443, True),
        ("*.pendo.io", "data.pendo.io.", 443, True),
        ("a.example, PENDO.io", "data.pendo.io", 443, True),
        ("a.example pendo.io", "data.pendo.io", 443, True),
        ("pendo.io:443", "data.pendo.io", 443, True),
        ("pendo.io:80", "data.pendo.io", 443, False),
        ("data.pendo.io", "pendo.io", 443, False),
        ("ndo.io", "pendo.io", 443, False),
        (".", "pendo.io", 443, False),
        ("", "pendo.io", 443, False),
        ("10.1.2.3", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.1/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.0.0.0/8", "data.pendo.io", 80, False),
        ("[fd00::1]:80", "fd00::1", 80, True),
        ("fd00::/8", "fd00::1", 80, True),
        ("fd00::/8", "10.1.2.3", 80, False),
        ("10.0.0.0/99,no network", "10.1.2.3", 80, False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, expected: bool) -> None:
    assert bypasses(no_proxy, host, port) is expected


def test_the_setting_wins_over_the_environment() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}
    assert Outbound("pendo", "none").proxy_to(PENDO, environ) is None
    assert Outbound("pendo", "None").proxy_to(PENDO, {"HTTPS_PROXY": "http://p:1"}) is None
    assert Outbound("pendo", "http://q:2").proxy_to(PENDO, environ) == Proxy("http://q:2")
    assert Outbound("pendo", "http://q:2").proxy_to("https://127.0.0.1/", {}) == Proxy("http://q:2")


def test_a_login_is_taken_from_the_url_and_not_in_repr() -> None:
    proxy = Outbound("pendo", f"http://us%40er:{SECRET}%3A@q:2").proxy_to(PENDO, {})
    assert proxy == Proxy("http://q:2", "us@er", f"{SECRET}:")
    assert SECRET not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [f"socks5://u:{SECRET}@p:1080", f"https://u:{SECRET}@p:1", f"u:{SECRET}@p:many", "http://", "http://p/x"],
)
def test_an_environments_proxy_that_cannot_be_used_is_a_settings_error(text: str) -> None:
    """A direct connection instead would fail in a network that requires its proxy, or bypass the proxy."""
    with pytest.raises(SettingsError, match=r"HTTPS_PROXY: is not a proxy.*pendo\.proxy") as raised:
        Outbound("pendo").proxy_to(PENDO, {"HTTPS_PROXY": text})
    assert SECRET not in str(raised.value)


# Settings: exit code 2, with the key and no secret

Load = Callable[[Mapping[str, object]], object]


def _environ(settings: Mapping[str, object]) -> dict[str, str]:
    base = {
        "kafka.bootstrap_servers": "k:1",
        "pendo.track_secret": "s",
        "pendo.integration_key": "i",
        "gateway.write_keys": ["key-4711-4711"],
    }
    return {
        "FLAGPOST_" + key.upper().replace(".", "__"): value if isinstance(value, str) else json.dumps(value)
        for key, value in {**base, **settings}.items()
    }


def load_consumer(settings: Mapping[str, object]) -> object:
    return load_consumers(None, _environ(settings), Needs.KAFKA | Needs.PENDO)


def load_gateway(settings: Mapping[str, object]) -> object:
    return load_gateways(None, _environ(settings))


BOTH = pytest.mark.parametrize("load", [load_consumer, load_gateway])
REGISTRY = "kafka.schema_registry."


@pytest.mark.parametrize("text", [f"socks5://u:{SECRET}@p:1", f"u:{SECRET}@p:1", "direct", "http://p/path"])
@pytest.mark.parametrize("key", ["pendo.proxy", f"{REGISTRY}proxy"])
def test_an_invalid_proxy_is_refused(key: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} .*it should be a URL such as") as raised:
        load_consumer({key: text})
    assert SECRET not in str(raised.value)


@BOTH
@pytest.mark.parametrize("url", ["http://registry:8081", "http://10.0.0.1:8081"])
def test_a_registrys_password_over_plain_http_is_refused(load: Load, url: str) -> None:
    """Before the fix, it was sent over the network unencrypted."""
    login = {f"{REGISTRY}username": "u", f"{REGISTRY}password": SECRET}
    with pytest.raises(SettingsError, match=r"kafka\.schema_registry\.url .*allow_insecure_http") as raised:
        load({f"{REGISTRY}url": url, **login})
    assert SECRET not in str(raised.value)
    load({f"{REGISTRY}url": url, **login, f"{REGISTRY}allow_insecure_http": True})
    load({f"{REGISTRY}url": url})
    for fine in ("http://localhost:8081", "http://127.0.0.1:8081", "https://registry:8081"):
        load({f"{REGISTRY}url": fine, **login})


def test_a_publisher_does_not_show_the_registrys_password_either() -> None:
    user_info = {"schema.registry.basic.auth.user.info": f"u:{SECRET}"}
    allowed = {"schema.registry.allow.insecure.http": "true"}
    for url, properties in ((f"http://u:{SECRET}@registry:8081", {}), ("http://registry:8081", user_info)):
        with pytest.raises(ValueError, match="schema_registry_url is plain http") as raised:
            Publisher(bootstrap_servers="k:1", schema_registry_url=url, properties=properties)
        assert SECRET not in str(raised.value)
        Publisher(
            bootstrap_servers="k:1", schema_registry_url=url, properties={**properties, **allowed}
        ).close(0)
    Publisher(bootstrap_servers="k:1", schema_registry_url=f"http://u:{SECRET}@localhost:8081").close(0)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    authority = Authority(tmp_path)
    ours, others = authority.vouch_for("ours"), authority.vouch_for("others")
    locked = authority.vouch_for("locked", password=b"locked")
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    return {
        "ca": str(authority.file),
        "certificate": str(ours.certificate),
        "key": str(ours.key),
        "another key": str(others.key),
        "locked certificate": str(locked.certificate),
        "locked key": str(locked.key),
        "noise": str(noise),
        "missing": str(tmp_path / "missing.pem"),
        "folder": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ca_file": "missing"}, r"ca_file .*missing\.pem cannot be read \(No such file"),
        ({"ca_file": "folder"}, r"ca_file .*cannot be read \(Is a directory"),
        ({"ca_file": "noise"}, r"ca_file .*noise\.pem holds no certificates in PEM form"),
        ({"ca_file": "key"}, r"ca_file .*holds no certificates in PEM form"),
        ({"certificate_file": "missing"}, r"certificate_file .*cannot be read"),
        ({"certificate_file": "certificate"}, r"certificate_file .*private key in it"),
        ({"certificate_file": "certificate", "key_file": "missing"}, r"key_file .*cannot be read"),
        (
            {"certificate_file": "certificate", "key_file": "another key"},
            r"certificate_file .*private key in",
        ),
        (
            {"certificate_file": "locked certificate", "key_file": "locked key"},
            "certificate_file .*encrypted",
        ),
        ({"key_file": "key"}, r"certificate_file.*is required with a key"),
    ],
)
@BOTH
def test_files_of_certificates_that_cannot_be_used_are_named(
    load: Load, files: Mapping[str, str], given: Mapping[str, str], said: str
) -> None:
    keys = {f"{REGISTRY}{key}": files[name] for key, name in given.items()}
    with pytest.raises(SettingsError, match=rf"kafka\.schema_registry\.{said}"):
        load({f"{REGISTRY}url": "https://r", **keys})


@BOTH
def test_files_that_match_are_accepted(load: Load, files: Mapping[str, str]) -> None:
    own = {"ca_file": files["ca"], "certificate_file": files["certificate"], "key_file": files["key"]}
    load({f"{REGISTRY}url": "https://r", **{f"{REGISTRY}{key}": path for key, path in own.items()}})


def test_a_wrong_ca_file_for_pendo_ends_with_code_2(files: Mapping[str, str]) -> None:
    environ = _environ({"pendo.ca_file": files["noise"]})
    result = CliRunner().invoke(flagpost, ["consume"], env=environ)
    assert result.exit_code == 2, result.output
    assert f"pendo.ca_file (FLAGPOST_PENDO__CA_FILE): {files['noise']} holds no certificates" in result.output


def test_a_wrong_proxy_of_the_environment_ends_with_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("flagpost_settings.logs.configure_logging", lambda *_: None)
    environ = _environ({}) | {"HTTPS_PROXY": f"socks5://u:{SECRET}@p:1"}
    result = CliRunner().invoke(flagpost, ["consume"], env=environ)
    assert result.exit_code == 2, result.output
    assert "HTTPS_PROXY: is not a proxy that can be used" in result.output
    assert SECRET not in result.output


def test_a_tls_context_is_created_again_only_when_a_file_has_changed(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.pem"
    mounted.write_bytes(Authority(tmp_path).file.read_bytes())
    outbound = Outbound("pendo", ca_file=str(mounted))
    first = outbound.tls()
    assert Outbound("pendo", ca_file=str(mounted)).tls() is first
    mounted.write_bytes(mounted.read_bytes() + b"\n")
    assert outbound.tls() is not first
    assert outbound.tls().get_ca_certs() == first.get_ca_certs()
    mounted.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        outbound.tls()


def test_only_the_named_authorities_are_trusted(files: Mapping[str, str]) -> None:
    context = Outbound("pendo", ca_file=files["ca"]).tls()
    assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "the test's CA"),),)]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
