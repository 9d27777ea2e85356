"""Whether the group no longer answers a client that works otherwise.

In: each acknowledged commit, whether partitions are owned, whether Kafka and the group answer. Out: when to ask them,
and whether another client must join the group. It does no I/O.

It was seen that a KIP-848 client that had lost its coordinator never found it again: no commit succeeded, and no
partition was reported lost, although the group had long given them to others.
"""

from __future__ import annotations

from math import inf

OVERDUE_SESSIONS = 2
"""After this many session time-outs without a commit, ask Kafka whether it answers at all."""
SILENT_SESSIONS = 1
"""The group is silent if Kafka has answered for this many more session time-outs, and still no commit succeeded."""
ASK_SECONDS = 5.0
"""How often Kafka is asked."""
UNNOTED_SECONDS = 5.0
"""After this long without a look, waiting begins again: the thread may have stood still, and not the group."""


class GroupSilence:
    """What one client notices of its group. All times are monotonic seconds."""

    def __init__(self, session_seconds: float) -> None:
        self._session_seconds = session_seconds
        self._heard_at = inf
        """When the group last answered, or waiting for it began; inf: not looked at yet."""
        self._owns = False
        self._answers_since = inf
        """Since when Kafka has answered every question."""
        self._asked_at = self._asked_group_at = -inf
        self._noted_at = -inf

    def heard(self, now: float) -> None:
        """A commit was acknowledged, or the group has answered a question."""
        self._heard_at, self._answers_since = now, inf

    def note(self, now: float, *, owns: bool) -> None:
        """`owns`: whether there are partitions whose positions are committed."""
        begins = owns and not self._owns
        if begins or self._heard_at == inf or now - self._noted_at > UNNOTED_SECONDS:
            self.heard(now)
        self._owns = owns
        self._noted_at = now

    def begin(self) -> None:
        """Another client is to join the group: nothing is known of it."""
        self._heard_at = self._answers_since = inf
        self._owns = False

    def asks_group(self, now: float) -> bool:
        """Whether to ask the group now: while nothing is owned, no commit shows that it answers."""
        is_due = now - self._heard_at >= self._session_seconds and now - self._asked_group_at >= ASK_SECONDS
        if self._owns or not is_due:
            return False
        self._asked_group_at = now
        return True

    def asks(self, now: float) -> bool:
        """Whether to ask Kafka now for something that it always answers."""
        is_overdue = now - self._heard_at >= OVERDUE_SESSIONS * self._session_seconds
        return is_overdue and now - self._asked_at >= ASK_SECONDS

    def asked(self, now: float, *, answered: bool) -> None:
        """Note the result of asking Kafka; the time that the question took is no standstill."""
        self._asked_at = self._noted_at = now
        self._answers_since = min(self._answers_since, now) if answered else inf

    def is_silent(self, now: float) -> bool:
        """Whether another client must join the group."""
        return now - self._answers_since >= SILENT_SESSIONS * self._session_seconds
