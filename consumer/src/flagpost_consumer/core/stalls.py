"""Why a partition makes no progress: the reasons that `flagpost_stalled` shows (DESIGN, invariant 11).

In: nothing. Out: one name for each thing that a partition can wait for, besides Pendo and the pace of its visitors.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Stall(StrEnum):
    """What a partition waits for."""

    RESTORING = "restoring"
    """The ledger is being read; nothing else is until that is done."""
    SUPPRESSIONS = "suppressions"
    """Who is suppressed is not known: the suppressions topic cannot be read, or holds more than fits."""
    HELD = "held"
    """Somebody must act: the ledger has no such partition, or holds what only a later release can read."""
    REGISTRY = "registry"
    """The schema registry has not told a schema that a record needs."""
    MEMBERSHIP = "membership"
    """No commit has got through for a session: the group may have given it away, and nothing of it is sent."""
    LEDGER = "ledger"
    """Kafka does not take its settlements."""
    DEAD_LETTERS = "dead_letters"
    """Kafka does not take its dead letters."""
    CLOCK = "clock"
    """The local clock would condemn its events, and does not agree with Kafka's timestamps."""
    READING = "reading"
    """There are records to read, nothing forbids it, and none comes."""


class Stalled(NamedTuple):
    """That a partition makes no progress."""

    reason: Stall
    detail: str = ""
    """For people; what is known beyond the reason."""
