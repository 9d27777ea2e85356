"""Any settings file and environment are loaded as settings that work, or as problems that show no secret."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from yarl import URL

from engine_world import START_MS, decision, record
from example_counts import examples
from flagpost_consumer.adapters.kafka.config import consumer_config, producer_config
from flagpost_consumer.adapters.pendo.address import pendo_address
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.settings import Needs, Settings, SettingsError, engine_policy, load_settings

SECRET = "hunter2-hunter2"
"""Used in places where a secret belongs, and nowhere else."""


KeyPath = tuple[str, ...]


def _paths(model: type[BaseModel], above: KeyPath = ()) -> dict[KeyPath, str]:
    """Every key and section, with the annotation of its values as text."""
    found = {}
    for name, field in model.model_fields.items():
        found[*above, name] = str(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _paths(field.annotation, (*above, name))
    return found


PATHS = _paths(Settings)
SECRET_PATHS = [
    ("pendo", "track_secret"), ("pendo", "integration_key"), ("kafka", "schema_registry", "password"),
    ("kafka", "properties"), ("gateway", "webhook_secret"), ("publisher", "token"), ("pendo", "track_sekret"),
]  # fmt: skip
TEXTS = st.text(max_size=30) | st.text("abc.-*{}/", min_size=1, max_size=8) | st.sampled_from(
    ["", " ", "\x00", "a\x00b", "http://[x", "https://a b", "https://xn--/", "https://\u0130.example", "http://h:99999",
     "https://h\\x", "//x", "HTTPS://H", "https://[::1]:1/%zz", "[z-a]", "*" * 40, "{flag_key", "{flag_key}{x}", "us",
     "x" * 10_000, "/dev/null", "/", "\ud83d"]
)  # fmt: skip
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**30, 10**400, 2**63, 1e308, -0.0, 5e-324, 1, 2, 5, 300, 86_400, 0.5])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
SECRETS = st.sampled_from([SECRET, [SECRET], {"a": SECRET}, {"a": [SECRET]}, f"{SECRET}\n", f"\x00{SECRET}"])


def _laid(tree: dict[str, Any], path: KeyPath, value: object) -> None:
    for part in path[:-1]:
        below = tree.get(part)
        tree[part] = tree = below if isinstance(below, dict) else {}
    tree[path[-1]] = value


def _tree(entries: list[tuple[KeyPath, object]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in entries:
        _laid(tree, path, value)
    return tree


PIECES = (
    b"", b"\n", b"  ", b"\t", b": ", b"- ", b"[", b"{", b"}", b"'", b'"', b"&a ", b"*a", b"<<: *a", b"!!int ",
    b"!!float ''", b"!!binary x", b"!!python/object:os.system ", b"!!timestamp ", b"!!set ", b"|", b">", b"? ", b"#",
    b"%YAML 9.9\n", b"---\n", b"...\n", b"\xff", b"\x00", b"\x85", b"\xe2\x80\xa8", b"1:1:1.5", b"2026-13-01",
    b".inf", b"0x_", b"0o9", b"~", b"on: on\n",
)  # fmt: skip


def _fitting(path: KeyPath) -> st.SearchStrategy[tuple[KeyPath, object]]:
    """Values of a key's own type, so that not only the check of types is tested."""
    of = PATHS[path]
    kinds: list[st.SearchStrategy[object]] = [
        strategy
        for word, strategy in (
            ("float", NUMBERS), ("int", NUMBERS), ("bool", st.booleans()), ("list", st.lists(TEXTS, max_size=3)),
            ("dict", st.dictionaries(TEXTS, TEXTS, max_size=3)), ("str", TEXTS), ("Region", st.just("eu")),
        )
        if word in of
    ]  # fmt: skip
    return st.tuples(st.just(path), st.one_of(kinds) if kinds else VALUES)


ENTRIES = st.lists(
    st.sampled_from(list(PATHS)).flatmap(_fitting)
    | st.tuples(st.sampled_from(list(PATHS)), VALUES)
    | st.tuples(st.sampled_from(SECRET_PATHS), SECRETS),
    max_size=2,
)


def load(text: str | bytes, environ: dict[str, str], needs: Needs) -> Settings | SettingsError:
    """The settings with which the program would start, or the error that it would report."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "flagpost.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        try:
            return load_settings(path, environ, needs)
        except SettingsError as error:
            return error


def check(loaded: Settings | SettingsError, needs: Needs) -> None:
    """Check that accepted settings work, and that an error says where and what the problem is."""
    if isinstance(loaded, SettingsError):
        assert loaded.problems
        assert all((problem.key or problem.origin) and problem.text for problem in loaded.problems)
        return
    assert SECRET not in repr(loaded)
    policy = engine_policy(loaded)
    engine = Engine(policy, Random(1).random)
    engine.assign([0], 2, Instant(0.0, START_MS))
    engine.receive([record(decision("v", "checkout"))], Instant(0.0, START_MS))
    assert engine.poll(Instant(5.0, START_MS + 5_000)).settlements == []
    PendoHttp(pendo_address(loaded), lambda *_: None)
    if needs:
        assert consumer_config(loaded.kafka)["group.id"] == loaded.kafka.group_id
        assert producer_config(loaded.kafka)["acks"] == "all"


@given(ENTRIES, st.sampled_from([Needs.NOTHING, Needs.KAFKA | Needs.PENDO]))
@settings(deadline=None, max_examples=examples(150))
def test_any_tree_of_settings_works_or_is_refused_without_its_secrets(
    entries: list[tuple[KeyPath, object]], needs: Needs
) -> None:
    complete = [(("kafka", "bootstrap_servers"), "127.0.0.1:1"), (("pendo", "track_secret"), SECRET)]
    loaded = load(yaml.safe_dump(_tree([*complete, *entries])), {}, needs)
    assert SECRET not in str(loaded)
    check(loaded, needs)


@given(ENTRIES, st.dictionaries(TEXTS.map(lambda text: f"FLAGPOST_{text}"), TEXTS, max_size=2))
@settings(deadline=None, max_examples=examples(150))
def test_any_environment_works_or_is_refused_without_its_secrets(
    entries: list[tuple[KeyPath, object]], others: dict[str, str]
) -> None:
    environ = {"FLAGPOST_" + "__".join(path).upper(): _as_variable(value) for path, value in entries}
    loaded = load("", {**others, **environ}, Needs.NOTHING)
    assert SECRET not in str(loaded)
    check(loaded, Needs.NOTHING)


def _as_variable(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)


@given(
    ENTRIES, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.sampled_from(PIECES)), max_size=4)
)
@settings(deadline=None, max_examples=examples(200))
def test_any_text_in_the_file_works_or_is_refused(
    entries: list[tuple[KeyPath, object]], edits: list[tuple[int, int, bytes]]
) -> None:
    text = yaml.safe_dump(_tree(entries)).encode()
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    check(load(text, {}, Needs.NOTHING), Needs.NOTHING)


@given(
    st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@settings(deadline=None)
def test_any_bytes_in_the_file_work_or_are_refused(text: bytes) -> None:
    check(load(text, {}, Needs.NOTHING), Needs.NOTHING)


@given(st.text(st.sampled_from("ah.:/@[]%?#\\-_~1 \u0130\u00df\uff0e\u3002\u200d;&="), max_size=12))
@settings(deadline=None, max_examples=examples(300))
def test_a_url_that_is_accepted_can_be_requested(rest: str) -> None:
    for key in (
        "FLAGPOST_PENDO__TRACK_URL",
        "FLAGPOST_PENDO__API_URL",
        "FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL",
    ):
        loaded = load("", {key: f"https://{rest}"}, Needs.NOTHING)
        if isinstance(loaded, Settings):
            pendo, registry = loaded.pendo.urls, loaded.kafka.schema_registry.url or "https://r"
            for url in (
                pendo.track,
                f"{pendo.api}/api/v1/token/verify",
                f"{registry.rstrip('/')}/schemas/ids/1",
            ):
                assert URL(url).host
