"""Secrets that an answer echoes are hidden, however they are escaped."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.adapters.pendo.secret_echoes import STARS, echoes_of

SECRETS = (
    'se"cret',
    "back\\slash",
    '\\"',
    "a\\\\b",
    "tab/slash",
    "ends\\",
    "\\begins",
    "ünïcödé",
    "plain-4711",
    "a+b.*(c)",
)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_characters="\x7f"), min_size=4)


def echoed(secret: str) -> list[bytes]:
    """Return the forms in which JSON may contain a text, in one document and in a document within another."""
    once = [json.dumps({"sent": secret}).encode(), orjson.dumps({"sent": secret})]
    within = [json.dumps({"body": each.decode()}).encode() for each in once]
    slashes = [each.replace(b"/", rb"\/") for each in once]
    capitals = [json.dumps(secret).encode().replace(rb"\u00f", rb"\u00F")]
    coded = ["".join(f"\\u{ord(each):04x}" for each in secret).encode()]
    return [secret.encode(), *once, *within, *slashes, *capitals, *coded]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_hidden_in_every_form_that_json_has_for_it(secret: str) -> None:
    for answer in echoed(secret):
        shown = echoes_of(secret).sub(STARS, answer)
        assert STARS in shown, answer
        assert len(shown) <= len(answer) - len(secret) + 3


@given(VISIBLE)
def test_any_secret_is_hidden(secret: str) -> None:
    for answer in echoed(secret):
        assert STARS in echoes_of(secret).sub(STARS, answer)


@pytest.mark.parametrize("secret", ["\\" * 20 + "x", "a\\b\\c\\d", '"' * 20, "\\u005c"])
@pytest.mark.parametrize("unit", [b"\\", b'\\"', b"\\u005c", b"a\\b", b'"'])
def test_no_answer_takes_long_to_search(secret: str, unit: bytes) -> None:
    """A pattern that backtracks would not end before the test's time-out."""
    answer = unit * 200_000
    assert len(echoes_of(secret).sub(STARS, answer)) <= len(answer)
