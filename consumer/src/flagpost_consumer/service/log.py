"""The service's log lines about itself: at start, once a minute, and on changes of Pendo's state.

In: the settings, the books, each answer of Pendo's that was not a success. Out: the fields of log lines, as plain
values. No line contains an id or a secret.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import structlog

from flagpost_consumer import __version__
from flagpost_consumer.adapters.pendo.advice import what_to_do
from flagpost_consumer.core.books.accounts import Accounts
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.settings import Settings, differing

log = structlog.get_logger(__name__)

SUMMARY_SECONDS = 60.0
_NAMED = {
    Outcome.DELIVERED: "delivered",
    Outcome.DUPLICATE: "duplicates",
    Outcome.DROPPED: "dropped",
    Outcome.DEAD_LETTERED: "dead_lettered",
}
_WITH_REASONS = frozenset({Outcome.DROPPED, Outcome.DEAD_LETTERED})


def say_start(settings: Settings) -> None:
    """Log the first line of a process."""
    kafka, urls = settings.kafka, settings.pendo.urls
    log.info(
        "starting",
        version=__version__,
        group=kafka.group_id,
        topic=kafka.topic,
        ledger_topic=kafka.ledger_topic,
        dead_letter_topic=kafka.dead_letter_topic,
        suppressions_topic=kafka.suppressions_topic,
        pendo_track_host=urlsplit(urls.track).hostname,
        pendo_api_host=urlsplit(urls.api).hostname,
        settings=differing(settings),
    )


class Summary:
    """What has happened since the last summary."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records = 0
        self._settled: Counter[Reason] = Counter()

    def say(self) -> None:
        """Log what has happened, if anything has, or if anything waits."""
        accounts = self._engine.accounts
        records, settled = accounts.records, _by_reason(accounts)
        consumed, news = records - self._records, settled - self._settled
        self._records, self._settled = records, settled
        states = {name: endpoint.state for name, endpoint in self._engine.endpoints.items()}
        pending = accounts.pending.total()
        is_well = all(state is EndpointState.OK for state in states.values())
        if not (consumed or news or pending) and is_well:
            return
        is_lossless = not any(reason.outcome is Outcome.DEAD_LETTERED for reason in news)
        report = log.info if is_well and is_lossless else log.warning
        report(
            "summary",
            consumed=consumed,
            **_by_outcome(news),
            pending=pending,
            **{f"{name.value}_state": state.value for name, state in states.items()},
        )


def _by_reason(accounts: Accounts) -> Counter[Reason]:
    counts: Counter[Reason] = Counter()
    for (_, _, reason), count in accounts.settled.items():
        counts[reason] += count
    return counts


def _by_outcome(news: Counter[Reason]) -> dict[str, int]:
    """A field for each outcome, followed by one for each reason of what was not delivered."""
    fields: dict[str, int] = {}
    for outcome, name in _NAMED.items():
        reasons = {reason: count for reason, count in news.items() if reason.outcome is outcome}
        fields[name] = sum(reasons.values())
        if outcome in _WITH_REASONS:
            fields |= {f"{name}_{reason.value}": count for reason, count in sorted(reasons.items())}
    return fields


class PendoStates:
    """The states of Pendo's endpoints, and the answers that caused them."""

    def __init__(self, engine: Engine) -> None:
        self._endpoints = engine.endpoints
        self._said = dict.fromkeys(EndpointName, EndpointState.OK)
        self._answers: dict[EndpointName, Answer] = {}

    def note(self, endpoint: EndpointName, answer: Answer) -> None:
        """Remember the last answer that was not a success and concerns the endpoint."""
        self._answers[endpoint] = answer

    def say(self) -> None:
        """Log which states have changed."""
        for name, endpoint in self._endpoints.items():
            state = endpoint.state
            if state is not self._said[name]:
                self._said[name] = state
                self._say(name, state)

    def why(self, name: EndpointName, state: EndpointState) -> dict[str, str]:
        """Why an endpoint is in a state, and what to do; empty if all is well."""
        answer = None if state is EndpointState.OK else self._answers.get(name)
        return {} if answer is None else trouble(name, answer)

    def _say(self, name: EndpointName, state: EndpointState) -> None:
        report = log.info if state is EndpointState.OK else log.warning
        why = self.why(name, state)
        report("Pendo's state changed", endpoint=name.value, state=state.value, **why)


def trouble(name: EndpointName, answer: Answer) -> dict[str, str]:
    """What went wrong with a request, and what to do."""
    detail = {"detail": answer.detail} if answer.detail else {}
    return {"status": answer.label, **detail, "to_do": what_to_do(name, answer)}
