"""The lines that `flagpost tail` writes for settlements."""

from __future__ import annotations

import time

import orjson
import pytest

from flagpost_consumer.commands.tail import Sought, as_document, plain_line
from flagpost_consumer.terminal.echo import echo, echo_json
from flagpost_schemas import LedgerEntry

ENTRY = LedgerEntry(
    offset=17,
    kind="track",
    outcome="duplicate",
    reason="dedupe",
    event_id="e1",
    visitor_id="v1",
    account_id="acme",
    event="Experiment Viewed",
    flag_key="checkout",
    variation_key="off",
    dedupe_key=b"0123456789abcdef",
    duplicate_of=12,
    occurred_at=1_800_000_000_123,
    attempts=2,
    unseen=1,
    status=503,
)


NOW_MS = 1_800_000_009_999


def shown(partition: int, settled_at: int, entry: LedgerEntry) -> str:
    parts = plain_line(NOW_MS, partition, settled_at, entry)
    return " ".join(part if isinstance(part, str) else part.text for part in parts)


def test_a_json_line_holds_the_contracts_fields_and_no_more() -> None:
    assert as_document(3, 1_800_000_000_999, ENTRY) == {
        "partition": 3,
        "settled_at": 1_800_000_000_999,
        "offset": 17,
        "kind": "track",
        "outcome": "duplicate",
        "reason": "dedupe",
        "event_id": "e1",
        "visitor_id": "v1",
        "account_id": "acme",
        "event": "Experiment Viewed",
        "flag_key": "checkout",
        "variation_key": "off",
        "duplicate_of": 12,
        "occurred_at": 1_800_000_000_123,
        "attempts": 2,
        "unseen": 1,
        "status": 503,
    }


def test_a_line_for_people_shows_the_delivery_and_its_settlement() -> None:
    line = shown(3, 1_800_000_000_999, ENTRY)
    assert (
        line == "08:00:00.999Z duplicate     3/17 track v1 checkout off dedupe of 3/12 status 503 2 attempts"
    )


def test_times_are_utc_and_those_of_another_day_have_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, they were of this machine's zone, without a sign of it, and always without a date."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        entry = LedgerEntry(offset=1, kind="track", outcome="delivered", reason="ok")
        assert shown(0, NOW_MS, entry).startswith("08:00:09.999Z delivered")
        assert shown(0, NOW_MS - 86_400_000, entry).startswith("2027-01-14 08:00:09Z delivered")
    time.tzset()
    line = shown(23, NOW_MS, ENTRY._replace(visitor_id="7d1f", status=None, attempts=0))
    assert len(line) <= 80


def test_a_line_for_people_leaves_out_what_is_not_known() -> None:
    entry = LedgerEntry(offset=1, kind="unknown", outcome="dead_lettered", reason="undecodable")
    assert shown(0, 0, entry).endswith(" dead_lettered 0/1 unknown undecodable")


def test_a_delivered_delivery_is_shown_without_a_reason() -> None:
    entry = LedgerEntry(offset=1, kind="track", outcome="delivered", reason="ok", visitor_id="v", status=200)
    assert shown(0, 0, entry).endswith(" delivered     0/1 track v status 200")


HOSTILE = "\x1b[2J\x1b]0;title\x07v\nw\x9b31m\u202eevil\u2066"


def test_control_characters_of_an_id_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    entry = LedgerEntry(
        offset=1, kind="track", outcome="delivered", reason="ok", visitor_id=HOSTILE, flag_key=HOSTILE
    )
    echo(*plain_line(NOW_MS, 0, 0, entry))
    echo_json(as_document(0, 0, entry))
    plain, document = capsys.readouterr().out.splitlines()
    assert plain.isprintable()
    assert document.isprintable()
    assert orjson.loads(document)["visitor_id"] == HOSTILE


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 253_402_300_799_999, -62_135_596_800_000, 0])
def test_numbers_that_are_not_times_are_shown_unchanged(number: int) -> None:
    entry = ENTRY._replace(offset=number, occurred_at=number, duplicate_of=number)
    line = shown(3, number, entry)
    assert f"3/{number}" in line
    assert orjson.loads(orjson.dumps(as_document(3, number, entry)))["settled_at"] == number


@pytest.mark.parametrize(
    ("sought", "fits"),
    [
        (Sought(), True),
        (Sought(visitor_ids=frozenset({"v1"}), flag_key="checkout", outcome="duplicate"), True),
        (Sought(visitor_ids=frozenset({"v2"})), False),
        (Sought(flag_key="check"), False),
        (Sought(outcome="delivered"), False),
    ],
)
def test_every_filter_must_match(sought: Sought, fits: bool) -> None:
    assert sought.fits(ENTRY) is fits
