"""Write keys: their names, files that cannot be used, and their rate limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flagpost_publisher.gateway.key import EVERY_TYPE, PUBLIC_TYPES, Key, SentType
from flagpost_publisher.gateway.key_ring import KeyRing
from flagpost_publisher.gateway.rates import (
    ADDRESS_BURST_SECONDS,
    ADDRESS_EVENTS_PER_SECOND,
    MAX_ADDRESSES,
    Rates,
)
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.settings import GatewaySettings, KeySettings, load_settings
from flagpost_publisher.gateway.write_keys import WriteKeys
from flagpost_settings.problems import SettingsError

ONE, TWO, THREE = "first-key-4711", "second-key-4711", "third-key-4711"
HUNTER = "hunter2-hunter2"


def gateway_settings(**gateway: Any) -> GatewaySettings:
    given = {f"FLAGPOST_GATEWAY__{name.upper()}": as_text(value) for name, value in gateway.items()}
    return load_settings(None, {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "k:1", **given}).gateway


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def refused(**gateway: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        gateway_settings(**gateway)
    assert HUNTER not in str(caught.value)
    return str(caught.value)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(ring: KeyRing, text: str) -> str | None:
    key = ring.find(text)
    return None if key is None else key.name


# Names


def test_a_key_has_its_name_however_it_is_set(tmp_path: Path) -> None:
    file = tmp_path / "partner"
    file.write_text(f"{TWO}\n")
    ring = KeyRing(
        gateway_settings(
            write_keys=["unnamed-key-1", "unnamed-key-2"],
            keys={
                "checkout": {"key": ONE},
                "partner": {"key_file": str(file)},
                "hashed": {"key_sha256": sha256(THREE)},
            },
        )
    )
    texts = [ONE, TWO, THREE, "unnamed-key-1", "unnamed-key-2", "unknown-key-3", ""]
    assert [name_of(ring, text) for text in texts] == [
        "checkout", "partner", "hashed", "key-1", "key-2", None, None
    ]  # fmt: skip
    assert sorted(ring.names) == ["checkout", "hashed", "key-1", "key-2", "partner"]


def test_the_settings_say_what_may_be_sent_with_a_key() -> None:
    ring = KeyRing(
        gateway_settings(
            keys={
                "all": {"key": ONE},
                "some": {"key": TWO, "types": ["track", "identify"], "events_per_second": 5},
                "web": {"key": THREE, "origins": ["https://WWW.example.com"]},
            }
        )
    )
    assert ring.find(ONE) == Key("all", EVERY_TYPE)
    assert ring.find(TWO) == Key("some", frozenset({SentType.TRACK, SentType.IDENTIFY}), 5.0)
    web = ring.find(THREE)
    assert web == Key("web", PUBLIC_TYPES, origins=frozenset({"https://www.example.com"}))
    assert web.is_public


@pytest.mark.parametrize("text", ["", "\n", " "])
def test_an_empty_text_is_no_key_whatever_hash_is_set(text: str) -> None:
    """Before the fix, the hash of the empty text let in every request without an authorization header."""
    settings = GatewaySettings(keys={"empty": KeySettings(key_sha256=sha256(text))})
    assert KeyRing(settings).find(text) is None


def test_a_key_with_two_names_has_the_rules_of_the_first_and_is_logged() -> None:
    with capture_logs() as lines:
        ring = KeyRing(gateway_settings(keys={"a": {"key": ONE, "types": ["track"]}, "b": {"key": ONE}}))
    assert name_of(ring, ONE) == "a"
    assert [(line["first"], line["other"]) for line in lines] == [("a", "b")]


@pytest.mark.parametrize(
    ("keys", "key", "told"),
    [
        ({"a": {}}, "gateway.keys.a.key", "set exactly one of key, key_file and key_sha256"),
        ({"a": {"key": HUNTER, "key_file": "/f"}}, "gateway.keys.a.key", "exactly one of key, key_file"),
        ({"a": {"key": "hunter2"}}, "gateway.keys.a.key", "12 characters or more"),
        ({"a": {"key": f"{HUNTER} {HUNTER}"}}, "gateway.keys.a.key", "without spaces"),
        ({"a": {"key_sha256": HUNTER}}, "gateway.keys.a.key_sha256", "pattern"),
        *(
            ({"a": {"key_sha256": digest}}, "gateway.keys.a.key_sha256", "SHA-256 of an empty text")
            for digest in (sha256(""), sha256("").upper(), sha256("\n"), sha256("\r\n"))
        ),
        ({"a": {"key": HUNTER, "types": []}}, "gateway.keys.a.types", "at least 1"),
        ({"a": {"key": HUNTER, "types": ["trak"]}}, "gateway.keys.a.types[0]", "'track'"),
        (
            {"a": {"key": HUNTER, "events_per_second": 0}},
            "gateway.keys.a.events_per_second",
            "greater than 0",
        ),
        ({"a": {"key": HUNTER, "origins": ["www.example.com"]}}, "gateway.keys.a.origins[0]", "pattern"),
        ({"a": {"key": HUNTER, "origins": ["*"]}}, "gateway.keys.a.origins[0]", "pattern"),
        ({"a": {"key": HUNTER, "origins": ["https://a.b/c"]}}, "gateway.keys.a.origins[0]", "pattern"),
        (
            {"a": {"key": HUNTER, "origins": ["https://a.b"], "types": ["identify"]}},
            "gateway.keys.a.types",
            "track and page only",
        ),
        ({"a b": {"key": HUNTER}}, "gateway.keys.a b", "pattern"),
        ({"a": {"key": HUNTER, "kee": 1}}, "gateway.keys.a.kee", "there is no such setting"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_not_shown(keys: object, key: str, told: str) -> None:
    said = refused(keys=keys)
    assert said.startswith(key)
    assert told in said


def test_a_name_that_an_unnamed_key_already_has_is_refused() -> None:
    said = refused(keys={"key-1": {"key": HUNTER}}, write_keys=[ONE])
    assert said.startswith("gateway.keys.key-1")
    assert KeyRing(gateway_settings(keys={"key-1": {"key": HUNTER}})).names == ["key-1"]


@pytest.mark.parametrize("setting", ["write_keys", "webhook_secret"])
def test_keys_and_secrets_have_a_minimum_length(setting: str) -> None:
    short = {"write_keys": ["hunter2-hun"], "webhook_secret": "hunter2-hun"}[setting]
    needed: dict[str, Any] = {} if setting == "write_keys" else {"write_keys": [ONE]}
    assert "12 characters or more" in refused(**needed, **{setting: short})


# Files


def ring_of(file: Path) -> KeyRing:
    return KeyRing(gateway_settings(write_keys_file=str(file)))


def wrong_in(ring: KeyRing) -> list[int]:
    return [lines.wrong for lines in ring.files]


def refreshed(ring: KeyRing) -> list[str]:
    """Read the files again; returns the lines that are logged."""
    with capture_logs() as lines:
        ring.refresh()
    assert not [key for key in (ONE, TWO, THREE) if key in str(lines)]
    return [f"{line['log_level']}: {line['event']}" for line in lines]


SAID_WRONG = (
    "error: secrets cannot be used, and clients that send them are refused: fix the source they are read from"
)
SAID_CHANGED = "info: write keys have changed"


@pytest.mark.parametrize("ruin", ["empty", "missing", "a directory", "only spaces", "no UTF-8"])
def test_a_file_that_no_longer_has_a_key_admits_nobody_and_is_reported(ruin: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n")
    ring = ring_of(file)
    file.unlink()
    match ruin:
        case "empty":
            file.write_text("")
        case "a directory":
            file.mkdir()
        case "only spaces":
            file.write_text("   \n")
        case "no UTF-8":
            file.write_bytes(b"\xff\xfe\n")
    assert refreshed(ring) == [SAID_WRONG, SAID_CHANGED]
    assert name_of(ring, ONE) is None
    assert wrong_in(ring) == [1]
    assert refreshed(ring) == []  # logged once, not every second
    if file.is_dir():
        file.rmdir()
    file.write_text(f"{TWO}\n")
    assert refreshed(ring) == [SAID_CHANGED]
    assert name_of(ring, TWO) == "key-1"
    assert wrong_in(ring) == [0]


def test_the_valid_keys_of_a_partly_bad_file_are_used(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\n" + ONE.encode() + b"\r\nshort\n\xff" + TWO.encode() + b"\n" + THREE.encode())
    with capture_logs() as lines:
        ring = ring_of(file)
    assert [name_of(ring, key) for key in (ONE, TWO, THREE, "short")] == ["key-1", None, "key-4", None]
    assert wrong_in(ring) == [2]
    assert lines[0]["problem"].startswith("line 2, 3: ")
    assert lines[0]["usable"] == 2


def test_a_removed_key_is_unknown_even_if_another_line_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n{TWO}\n")
    ring = ring_of(file)
    file.write_text(f"not a key\n{TWO}\n")
    ring.refresh()
    assert [name_of(ring, key) for key in (ONE, TWO)] == [None, "key-2"]


def test_the_log_names_the_keys_that_were_added_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n")
    ring = KeyRing(gateway_settings(keys={"checkout": {"key_file": str(file)}, "other": {"key": TWO}}))
    file.write_text(f"{ONE}\n{THREE}\n")
    with capture_logs() as lines:
        ring.refresh()
        file.write_text(f"{THREE}\n")
        ring.refresh()
    assert [(line["added"], line["gone"]) for line in lines] == [(["checkout"], []), ([], ["checkout"])]


def test_a_start_needs_one_key_that_can_be_used(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert refused(keys={"a": {"key_file": missing}}).startswith(f"gateway.keys.a.key_file ({missing})")
    ring = KeyRing(gateway_settings(keys={"a": {"key_file": missing}, "b": {"key": ONE}}))
    assert ring.names == ["b"]
    assert wrong_in(ring) == [1, 0]


# Rates


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def retry_after(rates: Rates, key: Key, address: str = "a", events: int = 1) -> str | None:
    """The `retry-after` header (in seconds) that a request with this many events gets; None: it is accepted."""
    try:
        rates.check(key, address)
        rates.count(key, address, events)
    except Refusal as refusal:
        return refusal.headers["retry-after"] if refusal.status == 429 else "another status"
    return None


def test_a_key_may_send_its_rate_and_above_it_gets_a_time_to_retry() -> None:
    clock = Clock()
    rates, key = Rates(clock), Key("k", events_per_second=5)
    assert [retry_after(rates, key) for _ in range(7)] == [None] * 5 + ["1", "1"]
    clock.now += 0.2
    assert [retry_after(rates, key) for _ in range(2)] == [None, "1"]
    clock.now += 3600
    assert [retry_after(rates, key) for _ in range(6)] == [None] * 5 + ["1"]


def test_a_batch_is_accepted_whole_and_the_wait_comes_after_it() -> None:
    clock = Clock()
    rates, key = Rates(clock), Key("k", events_per_second=10)
    assert retry_after(rates, key, events=100) is None
    assert retry_after(rates, key) == "10"
    clock.now += 9.1
    assert retry_after(rates, key) is None


@pytest.mark.parametrize("per_second", [0.1, 1, 7, 500])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_over_time_no_more_than_the_rate_is_sent(per_second: float, batch: int) -> None:
    clock = Clock()
    rates, key = Rates(clock), Key("k", events_per_second=per_second)
    taken = 0
    for _ in range(20_000):
        clock.now += 0.01
        taken += batch if retry_after(rates, key, events=batch) is None else 0
    assert taken <= 200 * per_second + max(1, per_second) + batch


def test_each_key_has_its_own_rate_and_no_rate_is_no_limit() -> None:
    rates = Rates(Clock())
    assert retry_after(rates, Key("a", events_per_second=1), events=100) is None
    assert retry_after(rates, Key("a", events_per_second=1)) is not None
    assert retry_after(rates, Key("b", events_per_second=1)) is None
    assert {retry_after(rates, Key("c"), events=100) for _ in range(100)} == {None}


def test_a_public_key_is_limited_by_address() -> None:
    rates, web = Rates(Clock()), Key("web", PUBLIC_TYPES, origins=frozenset({"https://a.b"}))
    burst = int(ADDRESS_EVENTS_PER_SECOND * ADDRESS_BURST_SECONDS)
    answers = [retry_after(rates, web, "1.1.1.1") for _ in range(burst + 1)]
    assert answers == [None] * burst + ["1"]
    assert retry_after(rates, web, "2.2.2.2") is None


def test_no_more_addresses_are_remembered_than_allowed() -> None:
    rates, web = Rates(Clock()), Key("web", PUBLIC_TYPES, origins=frozenset({"https://a.b"}))
    for number in range(MAX_ADDRESSES + 100):
        assert retry_after(rates, web, str(number)) is None
    assert len(rates._addresses) == MAX_ADDRESSES


# Requests


def keys_for(limited: list[str], **keys: Mapping[str, Any]) -> WriteKeys:
    ring = KeyRing(gateway_settings(keys=keys))
    return WriteKeys(ring, Rates(Clock()), lambda key: limited.append(key.name))


def test_a_key_in_the_document_counts_only_without_a_header() -> None:
    keys = keys_for([], one={"key": ONE}, two={"key": TWO})
    assert keys.require_if_given({}, "") is None
    assert keys.require_in({"writeKey": TWO}, {}, "").name == "two"
    found = keys.require_if_given({"authorization": f"Bearer {ONE}"}, "")
    assert found is not None
    assert found.name == "one"
    others: list[object] = [{}, [], None, {"writeKey": 1}, {"writeKey": THREE}, {"writeKey": "\ud800"}]
    for document in others:
        with pytest.raises(Refusal):
            keys.require_in(document, {}, "")
    with pytest.raises(Refusal):
        keys.require_if_given({"authorization": "Bearer wrong"}, "")


def test_a_public_key_is_for_pages_of_its_origins() -> None:
    keys = keys_for([], web={"key": ONE, "origins": ["https://www.example.com"]}, server={"key": TWO})
    assert keys.require_in({"writeKey": ONE}, {"origin": "https://www.example.com"}, "").name == "web"
    for origin in ("https://www.example.com.evil.com", "http://www.example.com", "null", ""):
        with pytest.raises(Refusal) as refusal:
            keys.require_in({"writeKey": ONE}, {"origin": origin}, "")
        assert refusal.value.status == 403
    assert keys.require_in({"writeKey": TWO}, {"origin": "null"}, "").name == "server"


def test_a_limited_key_is_counted_each_time_and_logged_by_name_only_now_and_then() -> None:
    limited: list[str] = []
    keys = keys_for(limited, slow={"key": ONE, "events_per_second": 1})
    key = keys.require_in({"writeKey": ONE}, {}, "")
    keys.count(key, "", 1)
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(Refusal, match="with this key"):
                keys.require_in({"writeKey": ONE}, {}, "")
    assert limited == ["slow", "slow", "slow"]
    assert [line["key"] for line in lines] == ["slow"]
    assert ONE not in str(lines)
