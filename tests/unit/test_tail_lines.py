"""What `flagpost tail` writes of a settlement."""

from __future__ import annotations

import click
import orjson
import pytest

from flagpost_consumer.operator.tail import Sought, json_line, plain_line
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


def test_a_json_line_holds_the_contracts_fields_and_no_more() -> None:
    line = json_line(3, 1_800_000_000_999, ENTRY)
    assert "\n" not in line
    assert orjson.loads(line) == {
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


def test_a_line_for_people_says_what_became_of_whose_what() -> None:
    line = click.unstyle(plain_line(3, 1_800_000_000_999, ENTRY))
    assert line[8:] == ".999 duplicate     3/17 track v1 checkout off dedupe of 12 status 503 2 attempts"


def test_a_line_for_people_leaves_out_what_is_not_known() -> None:
    entry = LedgerEntry(offset=1, kind="unknown", outcome="dead_lettered", reason="undecodable")
    assert click.unstyle(plain_line(0, 0, entry)).endswith(" dead_lettered 0/1 unknown undecodable")


def test_what_is_delivered_needs_no_reason() -> None:
    entry = LedgerEntry(offset=1, kind="track", outcome="delivered", reason="ok", visitor_id="v", status=200)
    assert click.unstyle(plain_line(0, 0, entry)).endswith(" delivered     0/1 track v status 200")


def test_control_characters_of_an_id_do_not_reach_the_terminal() -> None:
    entry = LedgerEntry(offset=1, kind="track", outcome="delivered", reason="ok", visitor_id="\x1b[2Jv\nw")
    assert "\x1b[2J" not in plain_line(0, 0, entry)
    assert "\n" not in plain_line(0, 0, entry)


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
def test_all_that_is_sought_must_fit(sought: Sought, fits: bool) -> None:
    assert sought.fits(ENTRY) is fits
