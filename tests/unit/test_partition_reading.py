"""How far a partition has been read, and what is written into its commits."""

from __future__ import annotations

import pytest

from flagpost_consumer.adapters.kafka.commit_metadata import CommitMetadata, read_metadata, write_metadata
from flagpost_consumer.adapters.kafka.partition_reading import Follows, PartitionReading, Start
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.books.leader_epochs import MAX_EPOCHS


def take(reading: PartitionReading, offset: int, epoch: int) -> None:
    """Read a message, as the intake does."""
    reading.next_offset = offset + 1
    if epoch != reading.epoch:
        reading.epoch_begins(offset, epoch)


def test_a_message_follows_after_a_hole_or_shows_that_the_log_went_back() -> None:
    reading = PartitionReading(Start(10))
    found = []
    for offset in (10, 11, 14):
        found.append(reading.follows(offset))
        take(reading, offset, 0)
    assert found == [Follows.NEXT, Follows.NEXT, Follows.AFTER_HOLE]
    assert reading.follows(15) is Follows.NEXT
    assert reading.follows(14) is Follows.WENT_BACK


def test_a_commit_carries_the_epoch_of_the_record_before_it() -> None:
    reading = PartitionReading(Start(10, leader_epoch=3))
    for offset, epoch in ((10, 3), (11, 3), (12, 5), (13, 5), (14, 6)):
        take(reading, offset, epoch)
    assert [reading.epoch_before(offset) for offset in (10, 12, 13, 14, 15)] == [3, 3, 5, 5, 6]


def test_a_commit_has_no_epoch_if_that_of_the_record_before_it_is_unknown() -> None:
    reading = PartitionReading(Start(10))
    assert reading.epoch_before(10) is None
    take(reading, 10, 4)
    assert reading.epoch_before(10) is None
    assert reading.epoch_before(11) == 4


def test_no_more_epochs_are_remembered_than_the_limit() -> None:
    """Without a limit, they would grow in a partition that is held up while its leader changes again and again."""
    reading = PartitionReading(Start(0))
    for offset in range(3 * MAX_EPOCHS):
        take(reading, offset, offset)
    assert len(reading._epochs._stretches) == MAX_EPOCHS
    assert reading.epoch_before(1) is None, "an epoch that is not the record's would look like a loss"
    assert reading.epoch_before(3 * MAX_EPOCHS) == 3 * MAX_EPOCHS - 1


def test_a_message_is_fresh_after_the_end_was_reached_and_until_a_pause() -> None:
    reading = PartitionReading(Start(0))
    assert not reading.is_fresh(5)
    reading.reached_end(5)
    assert not reading.is_fresh(4)
    assert reading.is_fresh(5)
    take(reading, 5, 0)
    reading.reached_end(6)
    assert reading.is_fresh(5), "the loop may ask only now"
    reading.paused()
    assert not reading.is_fresh(6)
    reading.reached_end(9)
    assert not reading.is_fresh(8)
    assert reading.is_fresh(9)


@pytest.mark.parametrize(
    ("position", "topic_id", "ledger_id", "text"),
    [
        (Position(7, None), None, None, ""),
        (Position(7, 120), None, None, "v1:120"),
        (Position(7, 120), "t-1_x", "l-2", "v1:120;topic=t-1_x;ledger=l-2"),
        (Position(7, 120, 90), "t", None, "v1:120;topic=t;from=90"),
        (Position(7, None), "t", "l", ";topic=t;ledger=l"),
    ],
)
def test_metadata_comes_back_as_it_was_written(
    position: Position, topic_id: str | None, ledger_id: str | None, text: str
) -> None:
    assert write_metadata(position, topic_id, ledger_id) == text
    assert read_metadata(text) == CommitMetadata(
        position.ledger_offset, topic_id, ledger_id, position.settles_from
    )


@pytest.mark.parametrize("text", [None, "", "v2:5", "v1:-5", "v1:x;topic", "v1:\u0665", ";;=;from=x"])
def test_metadata_that_cannot_be_read_is_ignored(text: str | None) -> None:
    assert read_metadata(text) == CommitMetadata()
