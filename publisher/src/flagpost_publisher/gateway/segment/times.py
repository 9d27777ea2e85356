"""When a Segment message happened, by the gateway's clock, and which of its times were not believed.

In: a message's members, the time of receipt. Out: epoch milliseconds that the consumer will accept: from the year
2000 on, and not later than `delivery.max_future_seconds` ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from flagpost_schemas.times import read_time_ms

EARLIEST_MS: Final = 946_684_800_000
"""The beginning of the year 2000. An earlier time is from a clock that was never set, or a zero."""
MAX_MOVE_MS: Final = 86_400_000
"""A day. A `sentAt` further away was not written when the message was sent: the message was in a queue or on
a disk.
"""


class NotBelieved(StrEnum):
    """Which of a message's times is not believed; metrics count each."""

    NO_TIMESTAMP = "no_timestamp"
    """There is none, or an empty one: the time of receipt is used."""
    TIMESTAMP = "timestamp"
    """It cannot be read, or is before 2000 or too far ahead: the time of receipt is used."""
    SENT_AT = "sent_at"
    """It cannot be read, or would move the message too far: the timestamp is used unchanged."""


class Occurrence(NamedTuple):
    """When a message happened."""

    at_ms: int
    not_believed: tuple[NotBelieved, ...] = ()


class Receipt(NamedTuple):
    """When a request arrived, and how far after that an event may be."""

    at_ms: int
    max_future_ms: float

    def allows(self, moment_ms: int) -> bool:
        """Whether the consumer would accept an event of that time."""
        return EARLIEST_MS <= moment_ms <= self.at_ms + self.max_future_ms


def occurrence(members: Mapping[str, Any], sent_at: object, receipt: Receipt) -> Occurrence:
    """When the message happened: receipt - (sentAt - timestamp), Segment's rule, as far as the times can be believed.

    `sent_at` is the message's own, or its batch's.

    A message that Segment forwards has both `originalTimestamp` and a `timestamp` that it has already corrected.
    """
    original, timestamp = members.get("originalTimestamp"), members.get("timestamp")
    claimed_ms, original_ms = read_time_ms(timestamp), read_time_ms(original)
    if claimed_ms is not None and original_ms is not None:
        return _as_it_is(claimed_ms, receipt)
    if claimed_ms is None:
        claimed_ms = original_ms
    if claimed_ms is None:
        missing = timestamp in (None, "") and original in (None, "")
        return Occurrence(receipt.at_ms, (NotBelieved.NO_TIMESTAMP if missing else NotBelieved.TIMESTAMP,))
    if sent_at in (None, ""):
        return _as_it_is(claimed_ms, receipt)
    return _corrected(claimed_ms, read_time_ms(sent_at), receipt)


def _corrected(claimed_ms: int, sent_ms: int | None, receipt: Receipt) -> Occurrence:
    if sent_ms is not None:
        ahead_ms = receipt.at_ms - sent_ms
        if abs(ahead_ms) <= MAX_MOVE_MS and receipt.allows(claimed_ms + ahead_ms):
            return Occurrence(claimed_ms + ahead_ms)
    at_ms, doubts = _as_it_is(claimed_ms, receipt)
    return Occurrence(at_ms, (NotBelieved.SENT_AT, *doubts))


def _as_it_is(claimed_ms: int, receipt: Receipt) -> Occurrence:
    if receipt.allows(claimed_ms):
        return Occurrence(claimed_ms)
    return Occurrence(receipt.at_ms, (NotBelieved.TIMESTAMP,))
