"""The page shows no ids unless `web.show_ids` is on: neither a key nor any other id that a text contains."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from flagpost_consumer.commands.dead_letters.records import DeadLetter, Place
from flagpost_consumer.core.planning.legible import quoted
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_consumer.web.consumers import Consumers
from flagpost_consumer.web.ids import Ids
from flagpost_consumer.web.live import Live
from flagpost_consumer.web.pages import Pages
from flagpost_consumer.web.reports import Reports

KEY, OTHER, ACCOUNT = "ada-lovelace", "grace-hopper", "analytical-engines"
PENDO_SAYS = f"Pendo: {KEY} and visitor {OTHER} of {ACCOUNT.upper()} are one"
OURS = f'Pendo has no visitor custom field "seats of {KEY}"; flagpost check says what to create there'
NOW_MS = 1_800_000_000_000
LETTER: dict[str, Any] = {
    "partition": 0,
    "offset": 3,
    "at": NOW_MS,
    "reason": "rejected",
    "detail": PENDO_SAYS,
    "kind": "track",
    "source": "events/0/9",
    "attempts": 2,
    "status": 400,
    "key": KEY,
    "replayed": False,
    "headers": {"x-user": OTHER, "flagpost-detail": PENDO_SAYS},
    "value": {"visitor_id": KEY, "account_id": ACCOUNT},
}
DELIVERY: dict[str, Any] = {
    "kind": "track", "state": "dead_lettered", "reason": "rejected", "detail": PENDO_SAYS, "settled_at": NOW_MS,
    "attempts": 2, "status": 400, "waits": None,
}  # fmt: skip
EVENT = {
    "type": "decision", "flag_key": "checkout", "variation_key": "a", "enabled": True, "visitor_id": KEY,
    "account_id": ACCOUNT, "event_id": f"e-{OTHER}", "attributes": {"friend": OTHER},
}  # fmt: skip
FOUND: dict[str, Any] = {
    "visitor": KEY,
    "suppressed": False,
    "records": [{"produced_at": NOW_MS, "occurred_at": NOW_MS, "event": EVENT, "deliveries": [DELIVERY]}],
}


def pages(*, show_ids: bool) -> Pages:
    ids = Ids(show_ids)
    return Pages(Reports(Consumers(()), ids), Live(lambda: None, ids))  # type: ignore[arg-type, return-value]


def named(text: str) -> set[str]:
    return {who for who in (KEY, OTHER, ACCOUNT, ACCOUNT.upper()) if who in text}


def test_an_opened_dead_letter_shows_no_ids() -> None:
    page = str(pages(show_ids=False).dead_letter(LETTER))
    assert named(page) == set()
    assert "Pendo&#x27;s answer is hidden" in page or "Pendo's answer is hidden" in page
    assert "web.show_ids" in page
    assert named(str(pages(show_ids=True).dead_letter(LETTER))) == {KEY, OTHER, ACCOUNT, ACCOUNT.upper()}


def test_our_own_texts_are_shown_without_the_id() -> None:
    letter = LETTER | {"detail": OURS, "status": None, "headers": {}}
    hidden = unescape(str(pages(show_ids=False).dead_letter(letter)))
    assert 'no visitor custom field "(id hidden)"; flagpost check says' in hidden
    assert OURS in unescape(str(pages(show_ids=True).dead_letter(letter)))


@pytest.mark.parametrize("visitor", ["e", "future", "clock", "delivery.max_future_seconds", "track"])
def test_a_sentence_of_ours_stays_whole_whatever_the_id(visitor: str) -> None:
    """Before the fix, every occurrence of the id was cut out of our own words: they were garbled, and the missing
    letters told the id.
    """
    ours = (
        "occurred_at is 400 s ahead of the consumer's clock, but delivery.max_future_seconds allows 300; "
        "check the clock of the service"
    )
    hiding = pages(show_ids=False)
    letter = LETTER | {"detail": ours, "status": None, "key": visitor}
    page = unescape(str(hiding.dead_letter(letter)))
    assert ours in page
    assert "(id hidden)" not in page
    waiting = (
        "it is not known whether it was read: no consumer's admin address is reachable (give --admin URL)"
    )
    waits = {"cause": "unknown", "detail": waiting, "not_before": None, "expires_at": None}
    pending = DELIVERY | {"state": "pending", "reason": None, "status": None, "waits": waits}
    record = FOUND["records"][0] | {"deliveries": [pending]}
    assert waiting in unescape(str(hiding.explain(FOUND | {"visitor": visitor, "records": [record]})))


@pytest.mark.parametrize(
    ("visitor", "name"),
    [
        (KEY, KEY.upper()),
        (KEY, f"{'x' * 55}{KEY}"),
        ('a"b', 'plan of a"b'),
        ("a\nb", "plan of a\nb"),
    ],
)
def test_a_name_in_a_sentence_of_ours_that_may_contain_the_id_is_hidden(visitor: str, name: str) -> None:
    told = f"property {quoted(name)} is not a finite number; leave it out instead"
    hidden = Ids(are_shown=False).why(told, None, visitor)
    assert hidden == 'property "(id hidden)" is not a finite number; leave it out instead'
    assert Ids(are_shown=True).why(told, None, visitor) == told
    other = 'property "seats" is not a finite number; leave it out instead'
    assert Ids(are_shown=False).why(other, None, visitor) == other


@pytest.mark.parametrize("show_ids", [True, False])
def test_the_list_of_dead_letters_and_its_csv_show_ids_only_on_request(show_ids: bool) -> None:
    view = replace(
        Aggregates(NOW_MS - 1, NOW_MS, Settings()).view(NOW_MS),
        newest_letters=(
            DeadLetter(
                place=Place(0, 3),
                key=KEY.encode(),
                at=NOW_MS,
                reason="rejected",
                detail=PENDO_SAYS,
                kind="track",
                source="events/0/9",
                attempts=2,
                status=400,
                truncated=False,
            ),
        ),
    )
    table = Reports(Consumers(()), Ids(show_ids)).newest_letters(view, None)
    for text in (str(table.as_html()), table.as_csv()):
        assert named(text) == ({KEY, OTHER, ACCOUNT.upper()} if show_ids else set())


@pytest.mark.parametrize(
    ("unreadable", "told"), [(None, "Kafka no longer has the record"), ("cut short", "not readable")]
)
def test_a_record_without_its_event_says_why(unreadable: str | None, told: str) -> None:
    """Before the fix, a record that Kafka no longer has was shown as not readable."""
    record = FOUND["records"][0] | {"event": None, "unreadable": unreadable}
    assert told in str(pages(show_ids=False).explain(FOUND | {"records": [record]}))


def test_an_explained_visitor_shows_no_other_ids() -> None:
    """The person who asks knows the id of the visitor: only the form and the links contain it."""
    page = str(pages(show_ids=False).explain(FOUND))
    assert named(page) == {KEY}
    assert f'value="{KEY}"' in page
    assert named(page.replace(f'value="{KEY}"', "").replace(f"visitor={KEY}", "")) == set()
    assert named(Reports(Consumers(()), Ids(are_shown=False)).explained(FOUND).as_csv()) == set()
    shown = str(pages(show_ids=True).explain(FOUND))
    assert named(shown) == {KEY, OTHER, ACCOUNT.upper()}
    assert "decision checkout: a" in page
    assert "decision checkout: a" in shown


@pytest.mark.parametrize("show_ids", [True, False])
def test_a_suppressed_visitor_is_shown_as_suppressed(show_ids: bool) -> None:
    told = "The visitor is suppressed"
    assert told in str(pages(show_ids=show_ids).explain(FOUND | {"suppressed": True}))
    assert told not in str(pages(show_ids=show_ids).explain(FOUND))
    nothing = str(pages(show_ids=show_ids).explain(FOUND | {"suppressed": True, "records": []}))
    assert told in nothing
    assert "Kafka has no event of this visitor" in nothing
