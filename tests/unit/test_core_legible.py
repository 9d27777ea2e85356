"""Texts from Pendo and from events, as our dead letters show them."""

from __future__ import annotations

import pytest

from engine_world import START_MS
from flagpost_consumer.core.metadata.answers import read_errors
from flagpost_consumer.core.pendo.attempts import refusal
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.legible import legible, quoted
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import MappingSettings, Policy, PropertiesPolicy
from flagpost_schemas import TrackEvent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is", "as it is"),
        (" two\r\n\tlines ", "two lines"),
        ("\x1b[31mred\x00", "[31mred"),
        ("0123456789", "0123456789"),
        ("0123456789a", "012345678…"),
        ("\n" * 1_000_000 + "far away", "…"),
    ],
)
def test_a_text_is_shown_on_one_short_line(text: str, shown: str) -> None:
    assert legible(text, 10) == shown


def test_a_name_is_quoted() -> None:
    assert quoted("") == '""'
    assert quoted("plan " * 1_000).endswith('…"')


def test_pendos_texts_are_shown_without_control_characters() -> None:
    assert refusal(Answer(400, body=b"<h1>\n\x1b[2JBad\xff</h1>")) == "Pendo answered 400: <h1> [2JBad�</h1>"
    assert refusal(Answer(400, body=b"\x00\x01")) == "Pendo answered 400"
    said = read_errors(
        b'{"errors":[{"id":"v","error":"no\\u0007\\nfield"},{"id":"w","error":"\\u0000"}]}', ["v", "w"]
    )
    assert said.refused == {"v": "Pendo: no field", "w": "Pendo refused the record without saying why"}


def test_a_hostile_property_name_leaves_room_for_the_advice() -> None:
    policy = Policy(mapping=MappingSettings(properties_policy=PropertiesPolicy.REJECT))
    event = TrackEvent(
        event_id="e", occurred_at=START_MS, visitor_id="v", event="e", properties={"\x1b" + "x" * 10_000: 1}
    )
    (planned,) = Planner(policy).plan(event, START_MS)
    assert planned.ending is not None
    assert planned.ending.detail.isprintable()
    assert planned.ending.detail.endswith("mapping.properties_policy trim would repair it")
    assert len(planned.ending.detail) <= 300
