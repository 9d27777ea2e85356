"""Metadata deliveries: batches, and what the answers to them say of each record.

In: planned metadata deliveries in the order of their offsets, answers. Out: attempts to make, endings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flagpost_consumer.core.attempts import Attempts, refusal, tell
from flagpost_consumer.core.budget import Budget
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.endpoint import Endpoint
from flagpost_consumer.core.mapping import Metadata, metadata_body
from flagpost_consumer.core.metadata_answers import read_errors
from flagpost_consumer.core.metadata_batches import Batch, Item, MetadataBatches
from flagpost_consumer.core.moments import is_now, latest
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Attempt, Delivery, EndpointName, Stage
from flagpost_consumer.core.settling import Settling
from flagpost_consumer.core.verdict import Answer, Verdict

MAX_IN_FLIGHT = 4
"""Metadata goes by the thousand: a few requests at once suffice, and a hanging one holds few connections."""


class MetadataSending:
    """The metadata deliveries of one process."""

    def __init__(self, policy: Policy, attempts: Attempts, settling: Settling) -> None:
        self._attempts = attempts
        self._settling = settling
        self._batches: MetadataBatches[Delivery] = MetadataBatches(
            batch_size=policy.metadata.batch_size,
            linger_seconds=policy.metadata.linger_seconds,
            ttl_seconds=policy.dedupe.ttl_seconds,
            max_entries=policy.dedupe.max_entries,
        )
        limits = policy.limits
        in_flight = max(1, min(MAX_IN_FLIGHT, limits.max_connections // 2))
        self.endpoint = Endpoint(in_flight, Budget(limits.metadata_requests_per_minute))

    # In

    def enter(self, delivery: Delivery, metadata: Metadata, occurred_at: int, now: Instant) -> None:
        """Take in a delivery: some values end at once, the others wait for company."""
        delivery.successes_seen = self.endpoint.successes
        record = delivery.record
        missing = bool(delivery.planned.missing_fields)
        delivery.item = Item(delivery, metadata, record.partition, record.offset, occurred_at, missing)
        # A newly assigned partition sends nothing for one interval, metadata included.
        self._batches.offer(delivery.item, max(now.monotonic, delivery.not_before))
        self._settle_ended(now)

    # Out

    def due_at(self, moment: float) -> float | None:
        """When a request is to start: `moment` if at once, None if only an answer or a record can tell."""
        return latest(self._batches.due_at(moment), self.endpoint.opens_at(moment))

    def start(self, now: Instant, has_connection: Callable[[], bool]) -> Iterator[Attempt]:
        """Start what may start."""
        moment = now.monotonic
        while has_connection() and is_now(self.due_at(moment), moment):
            batch = self._batches.take(moment, self.endpoint.last_failed)
            if batch is None:
                return
            records = self._batches.gather(batch, moment)
            if records:
                for item in self._batches.items(batch):
                    self._settling.start(item.owner)
                ticket = self.endpoint.start(batch.who, of_several=len(batch.ids) > 1)
                body = metadata_body(batch.target, records)
                yield Attempt(EndpointName.METADATA, body, ticket, batch=batch)

    def flush(self, now: Instant) -> None:
        """Let nothing wait for company any more."""
        self._batches.flush(now.monotonic)

    # Answers

    def answered(
        self, attempt: Attempt, batch: Batch, answer: Answer, verdict: Verdict, now: Instant
    ) -> None:
        """Take in what came of a request."""
        is_current = tell(self.endpoint, attempt.ticket, answer, verdict, now)
        deliveries = [item.owner for item in self._batches.items(batch)]
        endings = {
            delivery: self._attempts.note(delivery, answer, verdict, self.endpoint, is_current=is_current)
            for delivery in deliveries
        }
        if verdict is Verdict.DELIVERED:
            self._accepted(batch, answer, now)
        elif verdict is Verdict.REJECTED:
            self._rejected(batch, answer, now)
        else:
            wait = self._attempts.wait(deliveries, answer, verdict, now)
            self._batches.again(batch, now.monotonic + wait, lambda item: endings.get(item.owner))
        self._settle_ended(now)
        self._put_back(deliveries)

    def _accepted(self, batch: Batch, answer: Answer, now: Instant) -> None:
        """A 2xx, which may still name records that Pendo refused."""
        rest, unnamed = self._refuse_named(batch, answer, now)
        if unnamed:
            self._halve(batch, rest, Ending(Reason.REJECTED, "Pendo counts it as failed"), now)
        else:
            self._batches.accepted(batch, rest, now.monotonic)

    def _rejected(self, batch: Batch, answer: Answer, now: Instant) -> None:
        """A final answer to a whole batch: those it names are refused, the others are tried without them."""
        named = len(batch.ids)
        rest, _ = self._refuse_named(batch, answer, now)
        if rest and len(rest) < named:
            self._batches.again(Batch(batch.target, batch.group, rest), now.monotonic)
        else:
            self._halve(batch, rest, Ending(Reason.REJECTED, refusal(answer)), now)

    def _refuse_named(self, batch: Batch, answer: Answer, now: Instant) -> tuple[list[str], int]:
        """End the records that an answer names; gives the other ids, and how many more failed unnamed."""
        ids = list(batch.ids)
        errors = read_errors(answer.body, ids)
        for target_id, detail in errors.refused.items():
            self._batches.refused(batch, target_id, Ending(Reason.REJECTED, detail), now.monotonic)
        return [target_id for target_id in ids if target_id not in errors.refused], errors.unnamed

    def _halve(self, batch: Batch, ids: list[str], ending: Ending, now: Instant) -> None:
        """Look for the bad record among ids, so that it costs only itself."""
        if len(ids) == 1:
            self._batches.refused(batch, ids[0], ending, now.monotonic)
        else:
            self._batches.split(batch, ids, now.monotonic)

    def _settle_ended(self, now: Instant) -> None:
        ended, self._batches.ended = self._batches.ended, []
        for item, ending in ended:
            # The two name each other: left so, they would wait for the garbage collector, a million at a time.
            item.owner.item = None
            self._settling.settle(item.owner, ending, now)

    def _put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries whose request failed wait again, or are handed back."""
        for delivery in deliveries:
            if delivery.stage is not Stage.IN_FLIGHT or self._is_in_flight(delivery):
                continue
            self._settling.put_back(delivery)
            if not delivery.is_tried_again:
                self._settling.hand_back(delivery)
                self.remove([delivery])

    def _is_in_flight(self, delivery: Delivery) -> bool:
        return delivery.item is not None and self._batches.is_in_flight(delivery.item)

    # Handing back

    def remove(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries that were handed back out of what waits."""
        self._batches.remove([delivery.item for delivery in deliveries if delivery.item is not None])

    def forget_partition(self, number: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        self._batches.forget_partition(number)
