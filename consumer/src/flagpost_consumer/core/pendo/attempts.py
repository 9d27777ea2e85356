"""What an answer means for the deliveries of its request, at either endpoint.

In: an attempt's answer and its verdict. Out: how a delivery ends, or how long it waits for the retry; and what the
endpoint learns from the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from flagpost_consumer.core.backoff import RandomSource, retry_delay
from flagpost_consumer.core.books.deliveries import Delivery
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.pendo.endpoint import Endpoint, EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer, Verdict, retry_after_seconds
from flagpost_consumer.core.planning.legible import legible

MAX_SAID_CHARACTERS = 200


@dataclass(slots=True, eq=False)
class Attempt:
    """One request to make now; its answer comes back with it."""

    endpoint: EndpointName
    body: bytes
    ticket: Ticket


def tell(endpoint: Endpoint, ticket: Ticket, answer: Answer, verdict: Verdict, now: Instant) -> bool:
    """Tell an endpoint of an answer; returns whether the answer says something about the present set-up."""
    retry_after = retry_after_seconds(answer.retry_after, now.wall_ms)
    if verdict is Verdict.DELIVERED:
        endpoint.succeeded(ticket, now.monotonic)
    elif verdict is Verdict.TRANSIENT:
        endpoint.failed(ticket, now.monotonic, retry_after)
    elif verdict is Verdict.THROTTLED:
        endpoint.throttled(ticket, retry_after, now.monotonic)
    elif verdict is Verdict.SETUP:
        return endpoint.refused(ticket, now.monotonic)
    else:
        endpoint.rejected(ticket, now.monotonic)
    return True


def others_passed(delivery: Delivery, endpoint: Endpoint) -> bool:
    """Whether another visitor had a 2xx since the delivery's last attempt, or since it was planned."""
    return endpoint.passed_another(delivery.who) > delivery.successes_seen


class Attempts:
    """Judges attempts by one policy."""

    def __init__(self, max_attempts: int, random: RandomSource) -> None:
        self._max_attempts = max_attempts
        self._random = random

    def note(
        self,
        delivery: Delivery,
        answer: Answer,
        verdict: Verdict,
        endpoint: Endpoint,
        *,
        is_current: bool,
        alone: bool,
        of_several: bool = False,
    ) -> Ending | None:
        """Note an attempt at a delivery; returns the delivery's ending, or None for a retry.

        `is_current`: what `tell` returned. `alone`: what `others_passed` returned; a failure counts only then.
        `of_several`: the request was of other ids too; it is not known whose failure it was, so it counts for none.
        """
        delivery.attempts += 1
        if answer.status is None:
            delivery.unseen += answer.unseen
        else:
            delivery.status = answer.status
        delivery.successes_seen = endpoint.successes
        if verdict is Verdict.DELIVERED:
            return DELIVERED
        if verdict is Verdict.REJECTED:
            return Ending(Reason.REJECTED, refusal(answer))
        if of_several:
            return None
        delivery.failures += 1
        if verdict is Verdict.SETUP and is_current:
            return _poison(delivery) if _is_poison(delivery, endpoint) else None
        delivery.counted_attempts += verdict is Verdict.TRANSIENT and alone
        if delivery.counted_attempts >= self._max_attempts:
            detail = (
                f"{delivery.attempts} attempts failed while other deliveries succeeded; the last: {answer.label}; "
                "replay it later (delivery.max_attempts)"
            )
            return Ending(Reason.ATTEMPTS_EXHAUSTED, detail)
        return None

    def wait(self, failures: int, answer: Answer, verdict: Verdict, now: Instant) -> float:
        """Seconds to wait after this many failures: never less than Pendo asked for.

        A 429 says when to come back. A 503 says when to come back at the earliest: the backoff may wait longer.
        """
        asked = retry_after_seconds(answer.retry_after, now.wall_ms) or 0.0
        if verdict is Verdict.THROTTLED and asked:  # "after 0 s" is no wait: the backoff decides
            return asked
        return max(asked, retry_delay(max(1, failures), self._random))


def refusal(answer: Answer) -> str:
    """Why Pendo refused, with its own words if it gave any."""
    said = legible(answer.body[: 4 * MAX_SAID_CHARACTERS].decode("utf-8", "replace"), MAX_SAID_CHARACTERS)
    return f"Pendo answered {answer.label}" + (f": {said}" if said else "")


def _is_poison(delivery: Delivery, endpoint: Endpoint) -> bool:
    """Whether a refused delivery was refused before, and another visitor's request that started since then passed."""
    first = delivery.refused_at_ticket
    if first is None:
        delivery.refused_at_ticket = endpoint.tickets
        return False
    return endpoint.another_started_after(first, delivery.who)


def _poison(delivery: Delivery) -> Ending:
    """The ending of a delivery that met a setup answer twice while others passed."""
    detail = f"Pendo answered {delivery.status} to this delivery twice but accepted others: look at its ids"
    return Ending(Reason.REJECTED, detail)
