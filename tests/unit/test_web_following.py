"""How the page's reader handles marks that come late: it continues to read while they are requested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import pytest
from confluent_kafka import Message

from engine_world import decision
from flagpost_consumer.commands.reconcile.own_settlements import TopicUnknown
from flagpost_consumer.commands.sources.topic_reading import Committed, Span, TopicReader
from flagpost_consumer.settings import Needs, load_settings
from flagpost_consumer.web.following import BeginsAnew, Reading
from flagpost_consumer.web.marks import Mark
from flagpost_schemas import Settlements, encode_settlements, encode_single_object

SETTINGS = load_settings(None, {"FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"}, Needs.KAFKA)
EVENTS, LEDGER, LETTERS = (
    SETTINGS.kafka.topic,
    SETTINGS.kafka.ledger_topic,
    SETTINGS.kafka.dead_letter_topic,
)
LATER_MS = 1_800_000_000_000


class OnePartition:
    """Topics of one partition: the events topic has two records, the others have none."""

    def spans(self, topic: str) -> dict[int, Span]:
        return {0: Span(0, 2 if topic == EVENTS else 0)}

    def within(self, _: str, spans: Mapping[int, Span], __: int | None, ___: int | None = None) -> object:
        return spans

    def committed(self, _: str, __: object) -> dict[int, Committed]:
        return {}

    def read(self, _: str, __: object) -> Iterator[Message]:
        return iter(())


def mark(end: int, topic_id: str | None = None) -> Mark:
    spans = {EVENTS: {0: Span(0, end)}, LEDGER: {0: Span(0, 0)}, LETTERS: {0: Span(0, 0)}}
    return Mark(at_ms=LATER_MS, committed={}, spans=spans, topic_id=topic_id)


def read_settlements(reading: Reading, offset: int, topic_id: str) -> None:
    group = SETTINGS.kafka.group_id
    record = Settlements(group=group, topic_id=topic_id, member="m", settled_at=LATER_MS, entries=[], gaps=[])
    value = encode_settlements(record)
    reading.take(Message(topic=LEDGER, partition=0, offset=offset, value=value, timestamp=(1, LATER_MS)))


def read_up_to(reading: Reading, first: int, end: int) -> None:
    for offset in range(first, end):
        value = encode_single_object(decision(f"v{offset}"))
        reading.take(Message(topic=EVENTS, partition=0, offset=offset, value=value, timestamp=(1, LATER_MS)))


@pytest.fixture
def reading() -> Reading:
    """Return a reading that has reached its first mark, at offset 2."""
    found = Reading(SETTINGS, mark(2), cast("TopicReader", OnePartition()), None)
    read_up_to(found, 0, 2)
    assert found.is_reached()
    return found


def test_a_mark_that_was_passed_while_it_was_requested_is_reached_at_once(reading: Reading) -> None:
    """Before the fix, the topic seemed to have gone back, and the page read its window again and again."""
    read_up_to(reading, 2, 9)
    reading.mark_by(mark(5))
    assert reading.is_reached()
    assert reading.view().totals.published == 9


def test_a_topic_that_ends_before_a_former_mark_went_back(reading: Reading) -> None:
    reading.mark_by(mark(5))
    with pytest.raises(BeginsAnew, match="went back"):
        reading.mark_by(mark(4))


def test_a_topic_that_ends_before_the_records_read_when_its_end_was_requested_went_back(
    reading: Reading,
) -> None:
    read_up_to(reading, 2, 9)
    reading.mark_by(mark(5))
    with pytest.raises(BeginsAnew, match="went back"):
        reading.mark_by(mark(8))


def test_an_id_that_is_told_late_is_compared_with_the_topic_that_was_counted(reading: Reading) -> None:
    """It was not looked at any more once a reading had begun without an id."""
    read_settlements(reading, 0, "old")
    reading.mark_by(mark(2))
    with pytest.raises(BeginsAnew, match="created again"):
        reading.mark_by(mark(2, topic_id="new"))


def test_settlements_of_two_topics_are_not_counted_together(reading: Reading) -> None:
    read_settlements(reading, 0, "old")
    with pytest.raises(TopicUnknown):
        read_settlements(reading, 1, "new")
