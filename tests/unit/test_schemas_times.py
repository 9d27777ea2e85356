"""The one parser of times, and that every program uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.commands.imports.columns import CellError, read_occurred_at
from flagpost_consumer.terminal.times import MomentError, moment_ms
from flagpost_publisher.gateway.fronts import Reading
from flagpost_publisher.gateway.segment import requests
from flagpost_publisher.gateway.segment.times import NotBelieved
from flagpost_schemas.json_form import EventFormError, event_from_json
from flagpost_schemas.times import epoch_ms, read_time, read_time_ms
from fronts_reading import ANY_KEY, read_call

NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z
CASES = json.loads((Path(__file__).parents[1] / "cases" / "times.json").read_text())
"""One moment in the forms in which libraries write it; null: the time is not believed."""
YEAR_ONE = "0001-01-01T00:00:00Z"
"""Go and .NET write this if there is no time: it can be read, but is not believed as the time of an event."""


def case_ids(case: dict[str, Any]) -> str:
    return str(case["form"])


@pytest.mark.parametrize("case", CASES, ids=case_ids)
def test_segment_messages_have_the_time_that_they_name_or_that_of_their_receipt(case: dict[str, Any]) -> None:
    reading = read_call("track", {"userId": "u", "event": "e", "timestamp": case["form"]}, NOW_MS)
    (event,) = reading.events
    if case["expect_ms"] is None:
        assert event.occurred_at == NOW_MS
        assert reading.not_believed.total() == 1
    else:
        assert event.occurred_at == case["expect_ms"]
        assert not reading.not_believed


@pytest.mark.parametrize("case", CASES, ids=case_ids)
def test_the_json_form_reads_the_same_times(case: dict[str, Any]) -> None:
    document = {"type": "track", "event": "e", "visitor_id": "v", "occurred_at": case["form"]}
    if case["expect_ms"] is None and case["form"] != YEAR_ONE:
        with pytest.raises(EventFormError, match="occurred_at: must be"):
            event_from_json(document, now_ms=NOW_MS, new_event_id=lambda: "new")
    else:
        event = event_from_json(document, now_ms=NOW_MS, new_event_id=lambda: "new")
        assert event.occurred_at == read_time_ms(case["form"])


@pytest.mark.parametrize("case", [each for each in CASES if isinstance(each["form"], str)], ids=case_ids)
def test_the_import_and_the_commands_read_the_same_times(case: dict[str, Any]) -> None:
    if case["expect_ms"] is None:
        with pytest.raises(MomentError):
            moment_ms(case["form"], NOW_MS)
    else:
        assert moment_ms(case["form"], NOW_MS) == case["expect_ms"]
        assert read_occurred_at(case["form"]) == case["expect_ms"]
    if case["expect_ms"] is None and case["form"] != YEAR_ONE:
        with pytest.raises(CellError):
            read_occurred_at(case["form"])


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("2027-01-15T08:00:00Z", NOW_MS),
        ("2027-01-15T08:00:00.250+00:00", NOW_MS + 250),
        ("2027-01-15T08:00:00,25Z", NOW_MS + 250),
        ("2027-01-15T09:00:00+01:00", NOW_MS),
        ("2027-01-15T09:00:00+01", NOW_MS),
        ("2027-01-15T08:00:00", NOW_MS),
        ("2027-01-15T08:00Z", NOW_MS),
        ("2027-01-15 08:00:00.000001Z", NOW_MS),
        ("2027-01-15 09:00:00 +0100 CET", NOW_MS),
        ("2027-01-15 05:00:00.5 -0300 -03 m=-12.5", NOW_MS + 500),
        ("Fri Jan 15 2027 09:00:00 GMT+0100 (Mitteleuropäische Normalzeit)", NOW_MS),
        ("2027-01-15", NOW_MS - 8 * 3_600_000),
        (1_800_000_000, NOW_MS),
        (1_800_000_000.25, NOW_MS + 250),
        (1_800_000_000_000, NOW_MS),
        ("1800000000.25", NOW_MS + 250),
        ("99999999999", 99_999_999_999_000),
        ("100000000000", 100_000_000_000),
        (-1, -1000),
        (True, None),
        (None, None),
        ("12345678", None),
        ("1_800_000_000", None),
        ("١٨٠٠٠٠٠٠٠٠", None),
        ("20270115T080000Z", None),
        ("2027-015T08:00:00Z", None),
        ("2027-02-30T08:00:00Z", None),
        ("2027-01-15T25:00:00Z", None),
        ("Fri Foo 15 2027 09:00:00 GMT+0100", None),
        ("2027-01-15T08:00:00." + "0" * 100 + "Z", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (10**15, None),
        ([], None),
    ],
)
def test_a_time_is_read_in_every_form_that_is_sent(value: object, milliseconds: int | None) -> None:
    assert read_time_ms(value) == milliseconds


@pytest.mark.parametrize("text", ["2027-01-15T08:00:00", "2027-01-15"])
def test_a_time_without_an_offset_has_no_zone(text: str) -> None:
    moment = read_time(text)
    assert moment is not None
    assert moment.tzinfo is None


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_times_that_python_writes_are_read_to_the_millisecond(moment: Any) -> None:
    if moment.utcoffset() is not None and moment.utcoffset().seconds % 60:
        return  # local times from before there were time zones
    assert read_time_ms(moment.isoformat()) == epoch_ms(moment)


@given(st.text(max_size=40) | st.from_regex(r"[0-9TtZz:. +-]{1,30}", fullmatch=True))
def test_any_text_is_read_as_a_time_or_as_none(text: str) -> None:
    moment = read_time_ms(text)
    assert moment is None or abs(moment) <= 10_000 * 366 * 86_400_000


def times_not_believed(**members: Any) -> tuple[int, list[str]]:
    """Return how long a message happened before its receipt, in ms, and the times that were not believed."""
    reading = read_call("track", {"userId": "u", "event": "e", **members}, NOW_MS)
    return NOW_MS - reading.events[0].occurred_at, sorted(reading.not_believed.elements())


HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "before_ms", "not_believed"),
    [
        ("2027-01-15T10:00:00Z", "2027-01-15T11:00:00Z", HOUR_MS, []),  # a clock three hours ahead
        ("2027-01-14T09:00:00Z", "2027-01-14T10:00:00Z", HOUR_MS, []),  # one 22 hours behind
        ("2027-01-13T08:00:00Z", "2027-01-13T08:00:07Z", 48 * HOUR_MS, [NotBelieved.SENT_AT]),
        ("2027-01-15T07:00:00Z", "2027-01-17T08:00:00Z", HOUR_MS, [NotBelieved.SENT_AT]),
        ("2027-01-15T07:00:00Z", "0001-01-01T00:00:00Z", HOUR_MS, [NotBelieved.SENT_AT]),
        ("2027-01-15T07:00:00Z", 0, HOUR_MS, [NotBelieved.SENT_AT]),
        ("2027-01-15T07:00:00Z", "soon", HOUR_MS, [NotBelieved.SENT_AT]),
        # sent before it happened: the event would be moved ahead of its receipt
        ("2027-01-15T07:59:00Z", "2027-01-15T07:50:00Z", 60_000, [NotBelieved.SENT_AT]),
        ("2027-01-15T07:59:00Z", None, 60_000, []),
        ("2027-01-15T08:05:00Z", None, -300_000, []),
        ("2027-01-15T08:05:01Z", None, 0, [NotBelieved.TIMESTAMP]),
        ("1999-12-31T23:59:59Z", None, 0, [NotBelieved.TIMESTAMP]),
        ("1999-12-31T23:59:59Z", "2027-01-15T08:00:00Z", 0, [NotBelieved.SENT_AT, NotBelieved.TIMESTAMP]),
        ("yesterday", "2027-01-15T08:00:00Z", 0, [NotBelieved.TIMESTAMP]),
        (None, "2027-01-15T08:00:00Z", 0, [NotBelieved.NO_TIMESTAMP]),
    ],
)
def test_times_that_would_move_an_event_too_far_are_not_believed_and_counted(
    timestamp: object, sent_at: object, before_ms: int, not_believed: list[str]
) -> None:
    assert times_not_believed(timestamp=timestamp, sentAt=sent_at) == (before_ms, not_believed)


def test_an_event_may_be_as_far_ahead_as_the_consumers_setting_says() -> None:
    message = {"userId": "u", "event": "e", "timestamp": "2027-01-15T08:10:00Z"}
    reading = Reading(NOW_MS, ANY_KEY, max_future_ms=600_000)
    list(requests.read_call("track", message, reading))
    assert reading.events[0].occurred_at == NOW_MS + 600_000
