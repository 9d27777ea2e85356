"""When to commit: as positions move, and often enough to prove that the group counts on us.

In: the engine's positions, the time, and word of each commit's end. Out: commits, one at a time, so that the answer
to one cannot be taken for the answer to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.records import Position

PROOFS_A_SESSION = 3
"""DESIGN, Fence: a commit proves our membership for one session, and is repeated every third of it."""


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
        """How often there has to be a commit."""
        return self._session_seconds / PROOFS_A_SESSION

    def if_due(self, now: float) -> None:
        """Commit if positions have moved, or a proof is due."""
        if now >= self._committed_at + self.proof_seconds or self._engine.committable() != self._committed:
            self.now(now)

    def now(self, now: float) -> None:
        """Commit, as soon as the commit before has ended."""
        positions = self._engine.committable()
        if not positions:
            return
        self._again = self._under_way
        if not self._under_way:
            self._under_way = True
            self._committed, self._committed_at = positions, now
            self._commit(positions)

    def ended(self, began_at: float | None, now: float) -> None:
        """A commit that began at a moment is acknowledged; None: it failed, and is made again when it is due."""
        self._under_way = False
        if began_at is None:
            self._committed = {}
            return
        self._engine.prove_membership(began_at + self._session_seconds)
        if self._again:
            self.now(now)
