"""What /status tells: the state of one process, for people.

In: the engine, the metrics, each answer of Pendo's. Out: a JSON document without ids and without secrets.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any

from flagpost_consumer import __version__
from flagpost_consumer.adapters.metrics import Metrics
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.records import Attempt
from flagpost_consumer.core.verdict import Answer, Verdict, judge

LAST_ERRORS = 10
HOTTEST_VISITORS = 5


class Status:
    """One process's status."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._last_errors: deque[dict[str, Any]] = deque(maxlen=LAST_ERRORS)
        self._hash_key = secrets.token_bytes(16)

    def note(self, attempt: Attempt, answer: Answer, now: Instant) -> None:
        """Remember an answer that was no success."""
        if judge(answer) is not Verdict.DELIVERED:
            error = {"at": now.wall_ms, "endpoint": attempt.endpoint.value, "status": answer.label}
            detail = {"detail": answer.detail} if answer.detail else {}
            self._last_errors.append({**error, **detail})

    def document(self, paused: bool) -> Mapping[str, Any]:
        """The document; `paused`: whether intake is."""
        engine = self._engine
        return {
            "version": __version__,
            "intake_paused": paused,
            "assignment": [self._partition(number) for number in sorted(engine.assigned)],
            "endpoints": {
                "track": {"state": engine.track.state.value, "in_flight": engine.track.in_flight},
                "metadata": {"state": engine.metadata.state.value, "in_flight": engine.metadata.in_flight},
            },
            "pending": {kind.value: engine.accounts.pending[kind] for kind in Kind},
            "registry_waits": [
                {
                    "partition": wait.partition,
                    "schema_id": wait.schema_id,
                    "since": wait.since_ms,
                    "last_answer": wait.last_answer,
                }
                for wait in self._metrics.observed.registry_waits()
            ],
            "hottest_visitors": [
                {"visitor": self._hash(visitor), "waiting": waiting}
                for visitor, waiting in engine.hottest_visitors(HOTTEST_VISITORS)
            ],
            "last_errors": list(self._last_errors),
        }

    def _partition(self, number: int) -> Mapping[str, Any]:
        lag = self._metrics.observed.lag.get(number)
        read = {"lag": None} if lag is None else {"lag": lag.end - lag.position, "position": lag.position}
        stalled = self._metrics.observed.stalls().get(number)
        why = (
            {} if stalled is None else {"stalled": {"reason": stalled.reason.value, "detail": stalled.detail}}
        )
        return {"partition": number, **read, "restored": self._engine.is_restored(number), **why}

    def _hash(self, visitor_id: str) -> str:
        """A visitor, recognisable within this process only."""
        return hashlib.blake2b(visitor_id.encode(), key=self._hash_key, digest_size=8).hexdigest()
