"""The ledger without ids: a visitor's entries are found only with the key, and duplicates are still recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_steps import TRACKS_ONLY, engine_with, instant, reasons, settle_all
from engine_world import START_MS, decision, record
from flagpost_consumer.adapters.ledger.writer import entry_of
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning.ledger_ids import PLAIN, LedgerIds
from flagpost_consumer.core.planning.plan import decision_key
from flagpost_consumer.settings import (
    Needs,
    Settings,
    SettingsError,
    keyed_policy,
    ledger_ids,
    load_settings,
)
from flagpost_schemas import Settlements, encode_settlements

KEY = "k" * 32


def settings_with(path: Path | None, form: str = "keyed_hash") -> Settings:
    environ = {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "k:1", "FLAGPOST_PRIVACY__LEDGER_IDS": form}
    if path is not None:
        environ["FLAGPOST_PRIVACY__KEY_FILE"] = str(path)
    return load_settings(None, environ, Needs.KAFKA)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return path


def test_the_ledgers_bytes_contain_no_id_and_no_key_made_of_ids_alone(key_file: Path) -> None:
    settings = settings_with(key_file)
    engine = engine_with(keyed_policy(settings).model_copy(update={"decisions": TRACKS_ONLY.decisions}))
    event = decision("jane.doe@example.com", account_id="acme-inc", event_id="e")
    engine.receive([record(event)], instant(0.0))
    settled = settle_all(engine, 1.0)
    entry = entry_of(settled[0], ledger_ids(settings))
    value = encode_settlements(
        Settlements(group="g", member="m", settled_at=START_MS, entries=[entry], gaps=[])
    )
    assert entry.visitor_id is not None
    assert entry.visitor_id.startswith("keyed:")
    for hidden in (b"jane", b"acme", decision_key("jane.doe@example.com", "checkout", "a")):
        assert hidden not in value
    plain = entry_of(settled[0])
    assert (plain.visitor_id, plain.account_id) == ("jane.doe@example.com", "acme-inc")


def test_an_id_is_found_with_the_key_and_with_no_other() -> None:
    ours, theirs = LedgerIds(b"a" * 32), LedgerIds(b"b" * 32)
    assert ours.of("v1") == ours.of("v1")
    assert len({ours.of("v1"), ours.of("v2"), theirs.of("v1"), PLAIN.of("v1")}) == 4
    both = {"v1", "_PENDO_T_v1"}
    assert PLAIN.names_of("v1") == PLAIN.names_of("_PENDO_T_v1") == both
    assert ours.names_of("v1") == both | {ours.of(each) for each in both}, (
        "the ledger may be older than the key"
    )
    assert (PLAIN.of(None), ours.of(None)) == (None, None)
    assert len(ours.of("v" * 5000) or "") < 100
    assert len(PLAIN.of("v" * 5000) or "") == 1000
    assert "a" * 32 not in repr(ours)


def test_duplicates_are_recognised_by_keyed_keys(key_file: Path) -> None:
    policy = keyed_policy(settings_with(key_file)).model_copy(update={"decisions": TRACKS_ONLY.decisions})
    engine = engine_with(policy)
    engine.receive([record(decision("v", event_id=f"{n}"), n) for n in range(2)], instant(0.0))
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.OK, 1: Reason.DEDUPE}


def test_plain_is_the_default_and_needs_no_key() -> None:
    assert ledger_ids(settings_with(None, "plain")) == PLAIN
    assert keyed_policy(settings_with(None, "plain")).ledger_key == b""


def test_keyed_hash_without_a_key_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"privacy\.key_file"):
        settings_with(None)


@pytest.mark.parametrize("content", [None, "", "short", "x" * 31, "x" * 31 + "\n"])
def test_a_key_that_is_missing_or_short_is_refused_by_name_and_not_shown(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        settings_with(path)
    assert "privacy.key_file" in str(caught.value)
    assert not content or content.strip() not in str(caught.value)


def test_a_policy_does_not_show_the_key(key_file: Path) -> None:
    policy = keyed_policy(settings_with(key_file))
    assert repr(policy.ledger_key) not in repr(policy)
    assert "ledger_key" not in repr(policy)
