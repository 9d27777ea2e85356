"""What an answer does to the deliveries that its request carried, whichever endpoint it came from.

In: an answer and its verdict. Out: how a delivery ends, or how long it waits for the next try; and what the
endpoint learns from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from flagpost_consumer.core.backoff import RandomSource, retry_delay
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.endpoint import Endpoint, Ticket
from flagpost_consumer.core.legible import legible
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.records import Delivery
from flagpost_consumer.core.verdict import Answer, Verdict, retry_after_seconds

MAX_SAID_CHARACTERS = 200


def tell(endpoint: Endpoint, ticket: Ticket, answer: Answer, verdict: Verdict, now: Instant) -> str | None:
    """Tell an endpoint of an answer; gives the visitor whose delivery the answer exposes as poison."""
    if verdict is Verdict.DELIVERED:
        return endpoint.succeeded(ticket)
    if verdict is Verdict.TRANSIENT:
        endpoint.failed(ticket, now.monotonic)
    elif verdict is Verdict.THROTTLED:
        endpoint.throttled(ticket, retry_after_seconds(answer.retry_after, now.wall_ms), now.monotonic)
    elif verdict is Verdict.SETUP:
        endpoint.refused(ticket, now.monotonic)
    else:
        endpoint.rejected(ticket, now.monotonic)
    return None


class Attempts:
    """Judges attempts by one policy."""

    def __init__(self, max_attempts: int, random: RandomSource) -> None:
        self._max_attempts = max_attempts
        self._random = random

    def note(self, delivery: Delivery, answer: Answer, verdict: Verdict, endpoint: Endpoint) -> Ending | None:
        """Note an attempt at a delivery; gives the delivery's ending, or None to try again.

        An attempt counts only if another visitor had a 2xx since the one before. A visitor's own deliveries go
        one at a time, so any 2xx in between was another's.
        """
        delivery.attempts += 1
        delivery.unseen += answer.unseen
        if answer.status is not None:
            delivery.status = answer.status
        others_passed = endpoint.successes > delivery.successes_seen
        delivery.successes_seen = endpoint.successes
        if verdict is Verdict.DELIVERED:
            return DELIVERED
        if verdict is Verdict.REJECTED:
            return Ending(Reason.REJECTED, refusal(answer))
        delivery.failures += 1
        delivery.counted_attempts += verdict is Verdict.TRANSIENT and others_passed
        if delivery.counted_attempts >= self._max_attempts:
            detail = (
                f"{delivery.attempts} attempts failed while others passed; the last: {answer.label}; "
                "replay it later (delivery.max_attempts)"
            )
            return Ending(Reason.ATTEMPTS_EXHAUSTED, detail)
        return None

    def wait(self, deliveries: Iterable[Delivery], answer: Answer, verdict: Verdict, now: Instant) -> float:
        """How many seconds deliveries whose attempt failed wait for the next one."""
        if verdict is Verdict.THROTTLED:
            asked = retry_after_seconds(answer.retry_after, now.wall_ms)
            if asked:  # "after 0 s" is no wait: the backoff must do
                return asked
        return retry_delay(max((delivery.failures for delivery in deliveries), default=1), self._random)


def refusal(answer: Answer) -> str:
    """Why Pendo refused, in its own words as far as it has any."""
    said = legible(answer.body[: 4 * MAX_SAID_CHARACTERS].decode("utf-8", "replace"), MAX_SAID_CHARACTERS)
    return f"Pendo answered {answer.label}" + (f": {said}" if said else "")


def poison(delivery: Delivery) -> Ending:
    """The ending of a delivery that met an answer of the kind "set up wrongly" while another's passed."""
    detail = f"Pendo answered {delivery.status} to this delivery while it took another's: look at its ids"
    return Ending(Reason.REJECTED, detail)
