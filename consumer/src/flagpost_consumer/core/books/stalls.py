"""Why a partition makes no progress: the reasons that `flagpost_stalled` shows (docs/guarantees.md#progress).

In: nothing. Out: one name for each thing that a partition can wait for, besides Pendo and the pace of its visitors.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Stall(StrEnum):
    """What a partition waits for."""

    RESTORING = "restoring"
    """The ledger is being read; nothing else is read until that is done."""
    SUPPRESSIONS = "suppressions"
    """It is not known who is suppressed: the suppressions topic cannot be read, or is too large."""
    HELD = "held"
    """Somebody must act: the ledger has no such partition, or holds records that only a later release can read."""
    REGISTRY = "registry"
    """The schema registry has not returned a schema that a record needs."""
    MEMBERSHIP = "membership"
    """No commit has succeeded for a session: the group may have given the partition away, so nothing of it is sent.
    """
    LEDGER = "ledger"
    """Kafka does not take its settlements."""
    DEAD_LETTERS = "dead_letters"
    """Kafka does not take its dead letters."""
    CLOCK = "clock"
    """By the local clock its events would be dead-lettered, but the clock does not agree with Kafka's timestamps."""
    READING = "reading"
    """There are records to read, nothing prevents it, and none arrives."""


class Stalled(NamedTuple):
    """A partition that makes no progress."""

    reason: Stall
    detail: str = ""
    """For people: what is known besides the reason."""
