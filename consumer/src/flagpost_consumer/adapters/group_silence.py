"""Whether the group has ceased to answer a client that is well otherwise.

In: each commit that is acknowledged, what is owned, and whether Kafka answers. Out: when to ask Kafka, and whether
another client is to join the group. It does no I/O.

A client of KIP-848 that had lost its coordinator was seen never to find it again: no commit got through, no partition
was called lost, and the group had long given them to others.
"""

from __future__ import annotations

from math import inf

OVERDUE_SESSIONS = 2
"""Without a commit for so many session time-outs, Kafka is asked whether it answers at all."""
SILENT_SESSIONS = 1
"""The group is silent if Kafka has answered for so many more, and still no commit got through."""
ASK_SECONDS = 5.0
"""How often Kafka is asked."""
UNNOTED_SECONDS = 5.0
"""What was not looked at for so long is looked at anew: the thread may have stood still, and not the group."""


class GroupSilence:
    """What one client hears of its group. All times are monotonic seconds."""

    def __init__(self, session_seconds: float) -> None:
        self._session_seconds = session_seconds
        self._heard_at = inf
        """When the group was last heard of, or may first be; inf: nothing is owned that could be committed."""
        self._answers_since = inf
        """Since when Kafka has answered whenever it was asked."""
        self._asked_at = -inf
        self._noted_at = -inf

    def heard(self, now: float) -> None:
        """A commit was acknowledged."""
        self._heard_at, self._answers_since = now, inf

    def note(self, now: float, *, owns: bool) -> None:
        """`owns`: whether there are partitions whose positions are committed."""
        if not owns:
            self._heard_at = self._answers_since = inf
        elif self._heard_at == inf or now - self._noted_at > UNNOTED_SECONDS:
            self.heard(now)
        self._noted_at = now

    def asks(self, now: float) -> bool:
        """Whether Kafka is to be asked for anything that it always answers."""
        is_overdue = now - self._heard_at >= OVERDUE_SESSIONS * self._session_seconds
        return is_overdue and now - self._asked_at >= ASK_SECONDS

    def asked(self, now: float, *, answered: bool) -> None:
        """What came of it."""
        self._asked_at = now
        self._answers_since = min(self._answers_since, now) if answered else inf

    def is_silent(self, now: float) -> bool:
        """Whether another client is to join the group."""
        return now - self._answers_since >= SILENT_SESSIONS * self._session_seconds
