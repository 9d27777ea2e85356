"""When to commit: when positions have moved, and often enough to prove membership in the group.

In: the engine's positions, the time, and the result of each commit. Out: commits, one at a time, so that the result
of one cannot be taken for another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.engine import Engine

PROOFS_A_SESSION = 3
"""A commit proves our membership for one session, and is repeated every third of it:
docs/architecture.md#the-fence.
"""


class Commits:
    """The commits of one process."""

    def __init__(
        self, engine: Engine, session_seconds: float, commit: Callable[[Mapping[int, Position]], None]
    ) -> None:
        self._engine = engine
        self._session_seconds = session_seconds
        self._commit = commit
        self._committed: Mapping[int, Position] = {}
        self._committed_at = -inf
        self._under_way = False
        self._again = False

    @property
    def proof_seconds(self) -> float:
        """The longest time between two commits."""
        return self._session_seconds / PROOFS_A_SESSION

    def if_due(self, now: float) -> None:
        """Commit if positions have moved, or if membership has to be proved again."""
        if now >= self._committed_at + self.proof_seconds or self._engine.committable() != self._committed:
            self.now(now)

    def now(self, now: float) -> None:
        """Commit, as soon as the previous commit has ended."""
        positions = self._engine.committable()
        if not positions:
            return
        self._again = self._under_way
        if not self._under_way:
            self._under_way = True
            self._committed, self._committed_at = positions, now
            self._commit(positions)

    def ended(self, began_at: float | None, now: float) -> None:
        """The commit that began at a moment is acknowledged; None: it failed, and is repeated when due."""
        self._under_way = False
        if began_at is None:
            self._committed = {}
            return
        self._engine.prove_membership(began_at + self._session_seconds)
        if self._again:
            self.now(now)
