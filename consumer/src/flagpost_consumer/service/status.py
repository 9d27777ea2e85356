"""The content of /status: the state of one process, for people.

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
from flagpost_consumer.core.books.accounts import Accounts
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer, Verdict, judge
from flagpost_consumer.service.log import PendoStates, trouble
from flagpost_schemas.times import rfc3339

LAST_ERRORS = 10
HOTTEST_VISITORS = 5
OF_THE_ENDPOINT = frozenset({Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.SETUP})
"""Verdicts that concern the endpoint; a rejection concerns one delivery."""


class Status:
    """One process's status."""

    def __init__(
        self, engine: Engine, metrics: Metrics, states: PendoStates, group: str, started_ms: int
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._states = states
        self._group = group
        self._started = rfc3339(started_ms)
        self._last_errors: deque[tuple[int, EndpointName, Answer]] = deque(maxlen=LAST_ERRORS)
        self._hash_key = secrets.token_bytes(16)

    def note(self, attempt: Attempt, answer: Answer, now: Instant) -> None:
        """Remember an answer that was not a success."""
        verdict = judge(answer)
        if verdict is not Verdict.DELIVERED:
            self._last_errors.append((now.wall_ms, attempt.endpoint, answer))
        if verdict in OF_THE_ENDPOINT:
            self._states.note(attempt.endpoint, answer)

    def document(self, paused: bool) -> Mapping[str, Any]:
        """The document; `paused`: whether intake is paused. Times are RFC 3339, in UTC."""
        engine = self._engine
        return {
            "version": __version__,
            "group": self._group,
            "started_at": self._started,
            "intake_paused": paused,
            "assignment": [self._partition(number) for number in sorted(engine.assigned)],
            "endpoints": {
                name.value: {
                    "state": endpoint.state.value,
                    "in_flight": endpoint.in_flight,
                    "successes": endpoint.successes,
                    **self._states.why(name, endpoint.state),
                }
                for name, endpoint in engine.endpoints.items()
            },
            "records_consumed": engine.accounts.records,
            "totals": _totals(engine.accounts),
            "pending": {kind.value: engine.accounts.pending[kind] for kind in Kind},
            "registry_waits": [
                {
                    "partition": wait.partition,
                    "schema_id": wait.schema_id,
                    "since": rfc3339(wait.since_ms),
                    "last_answer": wait.last_answer,
                }
                for wait in self._metrics.observed.registry_waits()
            ],
            "hottest_visitors": [
                {"visitor": self._hash(visitor), "waiting": waiting}
                for visitor, waiting in engine.hottest_visitors(HOTTEST_VISITORS)
            ],
            "last_errors": [
                {"at": rfc3339(at_ms), "endpoint": name.value, **trouble(name, answer)}
                for at_ms, name, answer in self._last_errors
            ],
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
        """A hash of a visitor, which is the same only within this process."""
        return hashlib.blake2b(visitor_id.encode(), key=self._hash_key, digest_size=8).hexdigest()


def _totals(accounts: Accounts) -> Mapping[str, Mapping[str, int]]:
    """Deliveries of all kinds since the process started, by outcome and reason."""
    totals: dict[str, dict[str, int]] = {outcome.value: {} for outcome in Outcome}
    for (_, outcome, reason), count in sorted(accounts.settled.items()):
        reasons = totals[outcome.value]
        reasons[reason.value] = reasons.get(reason.value, 0) + count
    return totals
