"""The time at which a Segment message happened, by the gateway's clock."""

from __future__ import annotations

from typing import Any

import pytest

from fronts_reading import read_batch, read_call

RECEIVED = 1_800_000_000_000  # 2027-01-15T08:00:00Z


def occurred_at(**members: Any) -> int:
    (event,) = read_call("track", {"userId": "u", "event": "e", **members}, RECEIVED).events
    return event.occurred_at


def test_a_wrong_clock_is_corrected_by_when_the_message_was_sent() -> None:
    assert occurred_at(timestamp="2027-01-15T00:00:00Z", sentAt="2027-01-15T00:00:07Z") == RECEIVED - 7000


@pytest.mark.parametrize("sent_at", [None, "", "soon", True, {}])
def test_without_sent_at_the_timestamp_is_kept(sent_at: object) -> None:
    assert occurred_at(timestamp="2027-01-15T07:59:00Z", sentAt=sent_at) == RECEIVED - 60_000


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", True, []])
def test_without_a_readable_timestamp_the_time_of_receipt_is_used(timestamp: object) -> None:
    assert occurred_at(timestamp=timestamp, sentAt="2027-01-15T00:00:00Z") == RECEIVED


def test_an_original_timestamp_alone_is_corrected() -> None:
    times = {"originalTimestamp": "2027-01-15T00:00:00Z", "sentAt": "2027-01-15T00:00:07Z"}
    assert occurred_at(**times) == RECEIVED - 7000


def test_a_timestamp_that_segment_has_corrected_is_kept() -> None:
    times = {"originalTimestamp": "2027-01-15T00:00:00Z", "sentAt": "2027-01-15T00:00:07Z"}
    assert occurred_at(**times, timestamp="2027-01-15T07:59:00Z") == RECEIVED - 60_000


def test_a_batchs_sent_at_is_for_the_messages_that_have_none() -> None:
    message = {"type": "track", "userId": "u", "event": "e", "timestamp": "2027-01-15T00:00:00Z"}
    batch = [message, {**message, "sentAt": "2027-01-15T00:00:01Z"}, {**message, "sentAt": None}]
    events = read_batch({"batch": batch, "sentAt": "2027-01-15T00:00:10Z"}, RECEIVED).events
    assert [RECEIVED - event.occurred_at for event in events] == [10_000, 1_000, 10_000]
