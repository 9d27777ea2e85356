"""Metadata deliveries: batches, and what the answers to them say of each record.

In: planned metadata deliveries in the order of their offsets, answers. Out: attempts to make, endings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from flagpost_consumer.core.books.deliveries import UNCHANGED, Delivery, Settlement, Stage
from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.books.settling import Settling
from flagpost_consumer.core.books.shares import Room
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.metadata.answers import read_errors
from flagpost_consumer.core.metadata.batches import MetadataBatches
from flagpost_consumer.core.metadata.holdings import Holdings
from flagpost_consumer.core.metadata.retries import Batch
from flagpost_consumer.core.moments import is_now, latest
from flagpost_consumer.core.outcomes import Ending, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt, Attempts, others_passed, refusal, tell
from flagpost_consumer.core.pendo.budget import Budget
from flagpost_consumer.core.pendo.endpoint import Endpoint, EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, Verdict
from flagpost_consumer.core.planning.mapping import VISITOR, Metadata, metadata_body
from flagpost_consumer.core.planning.suppressions import SUPPRESSED, Suppressions
from flagpost_consumer.core.policy import Policy
from flagpost_schemas import MetadataValue

MAX_IN_FLIGHT = 4
"""One request carries up to a thousand ids: a few at once are enough, and those that hang hold few connections."""
SHARE = 0.15
"""The part of the pending limit for metadata that waits behind other metadata of the same id."""
HOARD_SECONDS = 5.0
"""What has waited for less than this while Pendo accepts metadata is not cut: the next requests may carry all
of it.
"""
HOARD = Ending(
    Reason.VISITOR_BACKLOG,
    "this id's waiting metadata uses more than its fair share of memory (delivery.max_pending_per_visitor)",
)
FAILURES_THAT_SCOUT = 2
"""After this many failures of a batch, one of its ids is sent alone, even if no other request has passed: there may
be no other. If this one passes, the batch itself is at fault. In an outage this costs one request, and batches stay
large.
"""


@dataclass(slots=True, eq=False)
class MetadataAttempt(Attempt):
    """The request for the values of up to a thousand visitors or accounts."""

    batch: Batch
    """Its ids."""


class MetadataSending:
    """The metadata deliveries of one process."""

    def __init__(
        self, policy: Policy, attempts: Attempts, settling: Settling, suppressions: Suppressions
    ) -> None:
        """`suppressions`: the visitors to whom nothing is sent, even if deliveries of theirs already wait."""
        self._attempts = attempts
        self._settling = settling
        self._suppressions = suppressions
        self._batches: MetadataBatches[Delivery] = MetadataBatches(
            batch_size=policy.metadata.batch_size,
            batch_bytes=policy.metadata.batch_bytes,
            linger_seconds=policy.metadata.linger_seconds,
            ttl_seconds=policy.dedupe.ttl_seconds,
            max_entries=policy.dedupe.max_entries,
        )
        self._delivery = policy.delivery
        self._holdings: Holdings[Delivery] = Holdings(Room.of(SHARE, policy.delivery))
        self._written: list[Item[Delivery]] = []
        """Deliveries whose dead letters Kafka has, since the last poll."""
        limits = policy.limits
        in_flight = max(1, min(MAX_IN_FLIGHT, limits.max_connections // 2))
        self.endpoint = Endpoint(in_flight, Budget(limits.metadata_requests_per_minute))
        self._unwell_at = -inf
        """When an answer last said that the endpoint accepts nothing."""

    @property
    def _is_well(self) -> bool:
        return self.endpoint.state is EndpointState.OK

    # In

    def enter(self, delivery: Delivery, metadata: Metadata, occurred_at: int, now: Instant) -> None:
        """Take in a delivery: some values end at once, the others wait to be batched."""
        record = delivery.record
        missing = bool(delivery.planned.missing_fields)
        if not missing and self.is_unchanged(metadata, record.partition, occurred_at, record.offset):
            self._settling.settle(delivery, UNCHANGED, now)
            return
        delivery.item = Item(delivery, metadata, record.partition, record.offset, occurred_at, missing)
        delivery.successes_seen = self.endpoint.successes
        self._holdings.add(delivery.item, delivery.size_bytes, now.monotonic)
        self._batches.offer(delivery.item, now.monotonic, delivery.not_before)
        self.settle_ended(now)

    def is_unchanged(self, metadata: Metadata, partition: int, occurred_at: int, offset: int) -> bool:
        """Whether a value ends at once: Pendo has it, and no other delivery of its field is pending."""
        return self._batches.is_unchanged(metadata, partition, (occurred_at, offset))

    def give_up_hoards(self, now: Instant) -> None:
        """Dead-letter the newest deliveries of ids whose metadata takes more than its share of memory.

        An id whose requests hang keeps everything that follows pending. Done only while Pendo has been accepting
        metadata for a while.
        """
        if not self._delivery.max_pending_per_visitor or not self._is_well:
            return
        before = now.monotonic - HOARD_SECONDS
        for item in self._holdings.beyond_fair_share(before) if self._unwell_at <= before else ():
            self._batches.give_up(item, HOARD)
        self.settle_ended(now)

    # Out

    def due_at(self, moment: float) -> float | None:
        """When a request is to start: `moment` if at once, None if that depends on an answer or a record."""
        if not self._holdings:  # as after most answers; the rest takes two microseconds
            return None
        return latest(self._batches.due_at(moment), self.endpoint.opens_at(moment))

    def start(self, now: Instant, has_connection: Callable[[], bool]) -> Iterator[MetadataAttempt]:
        """Start what may start."""
        moment = now.monotonic
        while self._holdings and has_connection() and is_now(self.endpoint.opens_at(moment), moment):
            batch = self._next_batch(moment)
            if batch is None:
                return
            if len(batch.ids) > 1 and self._seems_at_fault(batch):
                self._batches.halve(batch, batch.ids, moment)
                continue
            if len(batch.ids) > 1 and batch.failures >= FAILURES_THAT_SCOUT:
                self._batches.send_scout(batch, moment)
                continue
            self._drop_suppressed(batch, now)
            records = self._batches.gather(batch, moment)
            if records:
                yield self._attempt(batch, records)

    def _next_batch(self, moment: float) -> Batch | None:
        if self.endpoint.probes:
            return self._batches.take_probe(moment)
        return self._batches.take(moment, self.endpoint.last_failed)

    def _drop_suppressed(self, batch: Batch, now: Instant) -> None:
        """End the waiting deliveries of suppressed visitors: this is the last moment before they would be sent."""
        if not self._suppressions or batch.target != VISITOR:
            return
        for visitor_id in filter(self._suppressions.hold, batch.ids):
            self._batches.drop(batch, visitor_id, SUPPRESSED)
        self.settle_ended(now)

    def _attempt(self, batch: Batch, records: list[tuple[str, dict[str, MetadataValue]]]) -> MetadataAttempt:
        if not batch.failures:
            batch.successes_seen = self.endpoint.successes
        for item in self._batches.items(batch):
            self._settling.start(item.owner)
        ticket = self.endpoint.start(batch.who, of_several=len(batch.ids) > 1)
        return MetadataAttempt(EndpointName.METADATA, metadata_body(batch.target, records), ticket, batch)

    def _seems_at_fault(self, batch: Batch) -> bool:
        """Whether the requests of a batch seem to fail because of one of its ids, and not because of Pendo."""
        other_half_passed = batch.narrowed and self.endpoint.successes > batch.successes_seen
        return batch.failures > 0 and (batch.failed_alone or other_half_passed)

    def flush(self, now: Instant) -> None:
        """From now on, send everything without waiting for a full batch."""
        self._batches.flush(now.monotonic)

    # Answers

    def answered(self, attempt: MetadataAttempt, answer: Answer, verdict: Verdict, now: Instant) -> None:
        """Handle the answer to a request."""
        was_well = self._is_well
        is_current = tell(self.endpoint, attempt.ticket, answer, verdict, now)
        if not (was_well and self._is_well):
            self._unwell_at = now.monotonic
        batch = attempt.batch
        deliveries = [item.owner for item in self._batches.items(batch)]
        alone = len(batch.ids) == 1
        endings = {
            delivery: self._attempts.note(
                delivery,
                answer,
                verdict,
                self.endpoint,
                is_current=is_current,
                alone=others_passed(delivery, self.endpoint),
                of_several=not alone,
            )
            for delivery in deliveries
        }
        if verdict is Verdict.DELIVERED:
            self._accepted(batch, answer, now)
        elif verdict is Verdict.REJECTED:
            self._rejected(batch, answer, now)
        else:
            if verdict is not Verdict.THROTTLED and is_current:
                batch.failures += 1
                batch.failed_alone = self.endpoint.successes > batch.successes_seen
                batch.successes_seen = self.endpoint.successes
            # The parts of a batch have not failed so often themselves: they are sent again soon.
            failures = batch.failures
            if alone:
                failures = max((each.failures for each in deliveries), default=failures)
            self._back(batch, self._attempts.wait(failures, answer, verdict, now), endings, now)
        self.settle_ended(now)
        self._put_back(deliveries)

    def _back(
        self, batch: Batch, wait_seconds: float, endings: Mapping[Delivery, Ending | None], now: Instant
    ) -> None:
        """Send a batch again after its request has failed; an id that was a probe waits to be batched instead."""

        def give_up(item: Item[Delivery]) -> Ending | None:
            return endings.get(item.owner)

        if batch.is_probe and self.endpoint.probes:
            self._batches.disband(batch, now.monotonic, give_up)
        else:
            self._batches.again(batch, now.monotonic, wait_seconds, give_up)

    def _accepted(self, batch: Batch, answer: Answer, now: Instant) -> None:
        """A 2xx, which may still name records that Pendo refused."""
        rest, unnamed = self._refuse_named(batch, answer, now)
        if unnamed:
            self._halve(batch, rest, Ending(Reason.REJECTED, "Pendo counts it as failed"), now)
        else:
            self._batches.accepted(batch, rest, now.monotonic)

    def _rejected(self, batch: Batch, answer: Answer, now: Instant) -> None:
        """A final answer to a whole batch: the records it names are refused, the others are sent again
        without them.
        """
        named = len(batch.ids)
        rest, _ = self._refuse_named(batch, answer, now)
        if rest and len(rest) < named:
            self._batches.part(batch, rest, now.monotonic)
        else:
            self._halve(batch, rest, Ending(Reason.REJECTED, refusal(answer)), now)

    def _refuse_named(self, batch: Batch, answer: Answer, now: Instant) -> tuple[list[str], int]:
        """End the records that an answer names; returns the other ids, and how many more failed unnamed."""
        ids = list(batch.ids)
        errors = read_errors(answer.body, ids)
        for target_id, detail in errors.refused.items():
            self._batches.refused(batch, target_id, Ending(Reason.REJECTED, detail), now.monotonic)
        return [target_id for target_id in ids if target_id not in errors.refused], errors.unnamed

    def _halve(self, batch: Batch, ids: list[str], ending: Ending, now: Instant) -> None:
        """Search for the bad record among ids, so that only it is refused."""
        if len(ids) == 1:
            self._batches.refused(batch, ids[0], ending, now.monotonic)
        else:
            self._batches.halve(batch, ids, now.monotonic)

    def acknowledged(self, settlements: Iterable[Settlement]) -> None:
        """Kafka has these settlements: what waits for a dead letter among them is settled at the next poll."""
        for settlement in settlements:
            delivery = settlement.delivery
            if delivery.item is not None:
                self._written.append(delivery.item)
                delivery.item = None

    def settle_ended(self, now: Instant) -> None:
        """Settle the deliveries that have ended, or hand them back with those that they follow."""
        for item in self._written:
            self._batches.acknowledge(item)
        self._written.clear()
        for item, ending in self._batches.take_ended():
            self._holdings.discard(item)
            # The two refer to each other. Without this, up to a million would stay in memory until a garbage
            # collection.
            if ending.outcome is not Outcome.DEAD_LETTERED:
                item.owner.item = None
            self._settling.settle(item.owner, ending, now)
        for item in self._batches.take_returned():
            self._holdings.discard(item)
            item.owner.item = None
            if item.owner.stage is not Stage.RETURNED:
                self._settling.put_back(item.owner)
                self._settling.hand_back(item.owner)

    def _put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries whose request failed wait again, or are handed back."""
        failed = [
            delivery
            for delivery in deliveries
            if delivery.stage is Stage.IN_FLIGHT and not (delivery.item and delivery.item.flying)
        ]
        for delivery in failed:
            self._settling.put_back(delivery)
        given_up = [delivery for delivery in failed if not delivery.is_tried_again]
        for delivery in given_up:
            self._settling.hand_back(delivery)
        self.remove(given_up)

    # Handing back

    def remove(self, deliveries: Iterable[Delivery]) -> None:
        """Take deliveries that were handed back out of what waits."""
        items: list[Item[Delivery]] = []
        for delivery in deliveries:
            if delivery.item is not None:
                self._holdings.discard(delivery.item)
                items.append(delivery.item)
                delivery.item = None
        self._batches.remove(items)

    def forget_partition(self, number: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        self._batches.forget_partition(number)
