"""Metadata values, coalesced and batched.

In: metadata deliveries in the order of their offsets, and the outcome of each request. Out: batches to send, and how
each delivery ends. For each field of a visitor or account only the newest value by `occurred_at` waits; a value that
Pendo already has is not sent again; and an id has at most one request in flight.

A batch is a list of ids. Its values are gathered when it is sent, so that a batch that is sent again carries the
newest ones. The time that an operation takes depends on the number of ids that it changes, not on the number that
wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Reversible, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from math import inf
from typing import Generic, TypeAlias

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.items import BRACKETS_BYTES, Age, Owner, Value, record_bytes, values_of
from flagpost_consumer.core.metadata.order import SettlingOrder
from flagpost_consumer.core.metadata.queues import Queue
from flagpost_consumer.core.metadata.retries import Batch, Retries
from flagpost_consumer.core.metadata.sent_values import (
    Sent,
    SentValues,
    field_key,
    id_key,
    value_digest,
    value_key,
)
from flagpost_consumer.core.moments import earliest
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_schemas import MetadataValue

FAILED_SHARE = 8
"""While ids wait, failed batches get one of this many requests, as failing lanes do (`tracks/lanes.py`)."""

MAX_PROBED = 1_000
"""Up to this number of ids that were probes are remembered."""

FieldKey = tuple[str, str]
"""(group, field)"""
TargetKey = tuple[str, str]
"""(`visitor` or `account`, id)"""
QueueKey = tuple[str, str]
"""(`visitor` or `account`, group)"""
GiveUp: TypeAlias = Callable[[Item[Owner]], Ending | None]
"""Returns how a delivery ends after its request has failed; None: it is retried."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Owner]):
    """The values of one group that wait for one id."""

    size: int
    """Bytes of their record."""
    values: dict[str, Value[Owner]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Target(Generic[Owner]):
    """One visitor or account."""

    key: TargetKey
    record_bytes: int
    """Bytes of its record without values."""
    whose: int
    """The key by which its sent values are remembered."""
    send_from: float = -inf
    """The monotonic second before which nothing is sent: a newly assigned partition waits for one interval."""
    waiting: dict[str, _Waiting[Owner]] = field(default_factory=dict)
    """By group."""
    in_flight: dict[FieldKey, Value[Owner]] = field(default_factory=dict)
    batch: Batch | None = None
    """The batch that it belongs to, in flight or waiting to be sent again."""

    def waiting_value(self, key: FieldKey) -> Value[Owner] | None:
        """The value that waits for a field."""
        waiting = self.waiting.get(key[0])
        return None if waiting is None else waiting.values.get(key[1])


class MetadataBatches(Generic[Owner]):
    """All metadata that waits, is in flight, or was sent recently."""

    def __init__(
        self,
        *,
        batch_size: int,
        batch_bytes: int,
        linger_seconds: float,
        ttl_seconds: float,
        max_entries: int,
    ) -> None:
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._linger = linger_seconds
        self._ttl_ms = int(ttl_seconds * 1000)
        self._targets: dict[TargetKey, _Target[Owner]] = {}
        self._queues: dict[QueueKey, Queue] = {}
        self._not_yet: dict[float, dict[TargetKey, None]] = {}
        """The moments at which newly assigned partitions may send, and the ids that wait for each."""
        self._retries = Retries()
        self._retry_is_next = False
        """Whether the next probe comes from a failed batch, and not from the ids that wait."""
        self._probed: set[str] = set()
        """The ids that were probes since requests were last sent as usual."""
        self._fresh_since_failed = 0
        """Batches of waiting ids that were taken since the last failed batch was."""
        self._sent = SentValues(self._ttl_ms, max_entries)
        self._order: SettlingOrder[Owner] = SettlingOrder()
        self._refused: list[tuple[Item[Owner], Ending]] = []

    # Deliveries

    def offer(self, item: Item[Owner], now: float, send_from: float = -inf) -> None:
        """Take in one delivery; nothing of it is sent before `send_from`."""
        values = dict(values_of(item))
        key = item.metadata.key
        target = self._targets.get(key) or _Target(key, record_bytes(*key), id_key(*key))
        size = target.record_bytes + _size(values)
        if size > self._most_bytes:
            self._refused.append((item, self._too_large(size)))
            return
        self._targets[key] = target
        if send_from > max(target.send_from, now):
            self._leave_queues(target)
            target.send_from = send_from
        item.open_fields = len(values)
        self._order.begin(item)
        for name, value in values.items():
            self._offer_field(target, (item.metadata.group, name), value)
        self._enqueue(target, now)

    def is_unchanged(self, metadata: Metadata, partition: int, age: Age) -> bool:
        """Whether a delivery of one field ends as unchanged, while no other delivery of this field is pending.

        `offer` would find the same, but takes ten times as long; most metadata of decisions is unchanged.
        """
        if len(metadata.values) != 1 or self._order.holds(metadata):
            return False
        [(name, content)] = metadata.values.items()
        sent_key = value_key(id_key(*metadata.key), field_key(metadata.group, name))
        return self._known_as_sent(partition, sent_key, age, value_digest(content)) is Reason.UNCHANGED

    def remove(self, items: Sequence[Item[Owner]]) -> None:
        """Hand back deliveries: their values are not sent any more, and answers about them are ignored."""
        self._order.give_back(items)
        for item in items:
            self._take_out(item)

    def give_up(self, item: Item[Owner], ending: Ending) -> None:
        """End a delivery at once, whatever it waits for; it is not in flight."""
        self._take_out(item)
        item.given_up = True
        self._refused.append((item, ending))

    def acknowledge(self, item: Item[Owner]) -> None:
        """Kafka has the settlement of a delivery that was dead-lettered."""
        self._order.acknowledge(item)

    def take_ended(self) -> list[tuple[Item[Owner], Ending]]:
        """Return the deliveries to settle since the last call, in this order."""
        ended = [*self._refused, *self._order.settled]
        self._refused.clear()
        self._order.settled.clear()
        return ended

    def take_returned(self) -> list[Item[Owner]]:
        """Return the deliveries to hand back since the last call."""
        returned, self._order.returned = self._order.returned, []
        return returned

    def forget_partition(self, partition: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        self._sent.forget_partition(partition)

    # Batches

    def flush(self, now: float) -> None:
        """From now on, send what waits without lingering."""
        self._linger = 0.0
        self._retries.hurry(now)

    def due_at(self, now: float) -> float | None:
        """When a batch is to be sent: `now` if at once, None if nothing waits."""
        self._let_in(now)
        moments = [queue.leaves_at(self._linger) for queue in self._queues.values()]
        due = earliest(self._retries.first_at(), *self._not_yet, *moments)
        return None if due is None else max(now, due)

    def take(self, now: float, avoid: str | None = None) -> Batch | None:
        """Return a batch to send now; one whose first id is not `avoid`, if there is one.

        Waiting ids go first, but for one of `FAILED_SHARE` requests: where requests are few, there may always be ids
        that wait.
        """
        self._probed.clear()
        again = self._retries.first(now) if self._fresh_since_failed >= FAILED_SHARE - 1 else None
        fresh = None
        if again is None or again.who == avoid:
            fresh = self._take_fresh(now)
            if fresh is not None and fresh.who != avoid:
                self._fresh_since_failed += 1
                return fresh
            again = self._retries.first(now)
        if again is None:
            return fresh
        if fresh is not None:
            self.again(fresh, now)
        self._retries.drop(again)
        self._fresh_since_failed = 0
        return again

    def take_probe(self, now: float) -> Batch | None:
        """Return one id to send now, in a batch of its own.

        One of many ids may be the reason why requests fail; trying one after the other shows sooner that an endpoint
        is back. First those that were no probe yet, the newest first: an id that always fails has waited for longest.
        Then all of them over and over, in turn. Waiting ids and ids of failed batches alternate.
        """
        sources = [self._waiting_probe, self._failed_probe]
        if self._retry_is_next:
            sources.reverse()
        for again in (False, True):
            for source in sources:
                if (probe := source(now, again=again)) is not None:
                    self._note_probe(probe)
                    return probe
        return None

    def _waiting_probe(self, now: float, *, again: bool) -> Batch | None:
        for kind, group in self._due_queues(now):
            target_id = self._to_probe(self._queues[kind, group], again=again)
            if target_id is not None:
                return self._take_waiting(kind, group, [target_id])
        return None

    def _failed_probe(self, now: float, *, again: bool) -> Batch | None:
        found = self._retries.pop(now, lambda each: self._to_probe(each.ids, again=again))
        return None if found is None else self._peel(*found, now)

    def _to_probe(self, ids: Reversible[str], *, again: bool) -> str | None:
        """The newest of some ids that was no probe; or with `again` the one that has waited for longest."""
        if again:
            return next(iter(ids))
        return next((each for each in reversed(ids) if each not in self._probed), None)

    def _note_probe(self, probe: Batch) -> None:
        self._retry_is_next = not self._retry_is_next
        probe.is_probe = True
        if len(self._probed) >= MAX_PROBED:
            self._probed.clear()
        self._probed.add(probe.who)

    def _peel(self, batch: Batch, target_id: str, now: float) -> Batch:
        """Take an id out of a batch that was to be sent again."""
        if len(batch.ids) == 1:
            return batch
        peeled = Batch(batch.target, batch.group, [target_id])
        for target in self._targets_of(batch, peeled.ids):
            target.batch = peeled
        batch.ids.remove(target_id)
        self.again(batch, now)
        return peeled

    def gather(self, batch: Batch, now: float) -> list[tuple[str, dict[str, MetadataValue]]]:
        """Take the newest values of a batch's ids into flight; ids without values leave the batch."""
        records = []
        left = self._most_bytes
        for target in self._targets_of(batch):
            values = self._sendable(target, batch.group, now)
            size = target.record_bytes + _size(values)
            if not values or size > left:
                self._release(target, now, first=bool(values))
                continue
            left -= size
            for name, value in values.items():
                self._unwait(target, (batch.group, name))
                target.in_flight[batch.group, name] = value
                value.item.flying += 1
            records.append((target.key[1], {name: value.value for name, value in values.items()}))
        batch.ids = [target_id for target_id, _ in records]
        return records

    def items(self, batch: Batch) -> list[Item[Owner]]:
        """The deliveries that have a value in flight in a batch."""
        values = [value for target in self._targets_of(batch) for value in target.in_flight.values()]
        return list({id(value.item): value.item for value in values}.values())

    # Answers

    def accepted(self, batch: Batch, ids: Sequence[str], now: float) -> None:
        """Pendo accepted the values of these ids."""
        for target in self._targets_of(batch, ids):
            for key, value in self._land(target):
                self._remember(target, key, value)
                value.item.accepted = True
                self._close(value.item)
            self._release(target, now)

    def refused(self, batch: Batch, target_id: str, ending: Ending, now: float) -> None:
        """The values of one id end undelivered."""
        for target in self._targets_of(batch, [target_id]):
            for key, value in self._land(target):
                self._doubt(target, key, value)
                value.item.endings.append(ending)
                self._close(value.item)
            self._release(target, now)

    def drop(self, batch: Batch, target_id: str, ending: Ending) -> None:
        """End everything that waits for one id of a batch that is about to be sent."""
        for target in self._targets_of(batch, [target_id]):
            for group, waiting in list(target.waiting.items()):
                for name, value in list(waiting.values.items()):
                    self._unwait(target, (group, name))
                    value.item.endings.append(ending)
                    self._close(value.item)
            target.batch = None
            self._tidy(target)

    def again(
        self,
        batch: Batch,
        now: float,
        wait_seconds: float = 0.0,
        give_up: GiveUp[Owner] | None = None,
    ) -> None:
        """Send a batch again after a while, except the deliveries for which `give_up` returns an ending."""
        batch.waiting_ids = 0
        for target in self._targets_of(batch):
            self._come_back(target, give_up)
            if batch.group in target.waiting:
                batch.waiting_ids += 1
            else:
                self._release(target, now)
        if batch.waiting_ids:
            self._retries.push(now + wait_seconds, batch)

    def disband(self, batch: Batch, now: float, give_up: GiveUp[Owner] | None = None) -> None:
        """Let the ids of a batch wait to be batched again, except the deliveries for which `give_up` returns an
        ending.
        """
        for target in self._targets_of(batch):
            self._come_back(target, give_up)
            self._release(target, now)

    def part(self, batch: Batch, ids: Sequence[str], now: float) -> None:
        """Send these ids of a batch again at once, without the others."""
        part = Batch(batch.target, batch.group, list(ids), narrowed=batch.narrowed)
        for target in self._targets_of(batch, ids):
            target.batch = part
        self.again(part, now)

    def halve(self, batch: Batch, ids: Sequence[str], now: float) -> None:
        """Send these ids of a batch again at once, in two halves."""
        batch.narrowed |= batch.failed_alone
        middle = (len(ids) + 1) // 2
        for half in (ids[:middle], ids[middle:]):
            if half:
                self.part(batch, half, now)

    def send_scout(self, batch: Batch, now: float) -> None:
        """Send the first id of a batch alone at once, and the others again without it."""
        ids = batch.ids
        for part in (ids[:1], ids[1:]):
            self.part(batch, part, now)

    # What becomes of a field

    def _offer_field(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> None:
        waiting = target.waiting_value(key)
        flying = target.in_flight.get(key)
        if any(other is not None and other.age > value.age for other in (waiting, flying)):
            self._end_field(value, Reason.SUPERSEDED)
            return
        reason = self._known(target, key, value)
        if reason is None:
            self._wait(target, key, value)
        elif waiting is not None:
            # Pendo already has the newer value, so the older one that waits is not sent either.
            self._unwait(target, key)
        if waiting is not None:
            self._end_field(waiting, Reason.SUPERSEDED)
        if reason is not None:
            self._end_field(value, reason)

    def _known(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> Reason | None:
        """Why a value need not be sent, compared with the last one that was sent; None: it must be sent.

        When the two are equal, the sent one takes the age of the newer one, so that any value older than either is
        superseded.
        """
        flying = target.in_flight.get(key)
        if flying is not None:
            near = abs(flying.age[0] - value.age[0]) < self._ttl_ms
            if not near or flying.digest != value.digest:
                return None
            flying.age = value.age
            return Reason.UNCHANGED
        sent_key = value_key(target.whose, field_key(*key))
        return self._known_as_sent(value.item.partition, sent_key, value.age, value.digest)

    def _known_as_sent(self, partition: int, sent_key: bytes, age: Age, digest: bytes) -> Reason | None:
        sent = self._sent.near(partition, sent_key, age[0])
        if sent is None:
            return None
        if (sent.occurred_at, sent.offset) > age:
            return Reason.SUPERSEDED
        if sent.digest != digest:
            return None
        self._sent.remember(partition, sent_key, Sent(*age, digest))
        return Reason.UNCHANGED

    def _end_field(self, value: Value[Owner], reason: Reason) -> None:
        value.item.endings.append(Ending(reason))
        self._close(value.item)

    def _close(self, item: Item[Owner]) -> None:
        item.open_fields -= 1
        if item.open_fields == 0:
            self._order.end(item)

    def _come_back(self, target: _Target[Owner], give_up: GiveUp[Owner] | None) -> None:
        """The values of an id return from a request that failed, or was not made."""
        for key, value in self._land(target):
            self._doubt(target, key, value)
            ending = give_up(value.item) if give_up else None
            if ending is not None:
                value.item.endings.append(ending)
                self._close(value.item)
            elif target.waiting_value(key) is not None:
                self._end_field(value, Reason.SUPERSEDED)
            else:
                self._wait(target, key, value)

    def _land(self, target: _Target[Owner]) -> Iterable[tuple[FieldKey, Value[Owner]]]:
        """The values of an id are no longer in flight."""
        landed, target.in_flight = target.in_flight, {}
        for value in landed.values():
            value.item.flying -= 1
        return landed.items()

    def _take_out(self, item: Item[Owner]) -> None:
        """A delivery's values are no longer needed."""
        target = self._targets.get(item.metadata.key)
        if target is None:
            return
        for name in item.metadata.values:
            key = item.metadata.group, name
            waiting, flying = target.waiting_value(key), target.in_flight.get(key)
            if waiting is not None and waiting.item is item:
                self._unwait(target, key)
            if flying is not None and flying.item is item:
                del target.in_flight[key]
        self._tidy(target)

    def _remember(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> None:
        sent_key = value_key(target.whose, field_key(*key))
        self._sent.remember(value.item.partition, sent_key, Sent(*value.age, value.digest))

    def _doubt(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> None:
        """Pendo may have accepted this value although no answer came: what Pendo has is unknown now."""
        self._sent.doubt(value.item.partition, value_key(target.whose, field_key(*key)))

    # What waits

    @property
    def _most_bytes(self) -> int:
        return self._batch_bytes - BRACKETS_BYTES

    def _too_large(self, size: int) -> Ending:
        return Ending(
            Reason.INVALID,
            f"its values take {size} bytes as JSON, but metadata.batch_bytes allows {self._batch_bytes} for a "
            "request: the service must send fewer or shorter ones",
        )

    def _wait(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> None:
        waiting = target.waiting.get(key[0])
        if waiting is None:
            waiting = target.waiting[key[0]] = _Waiting(target.record_bytes)
        before = waiting.values.get(key[1])
        waiting.values[key[1]] = value
        self._resize(target, key[0], waiting, value.size - (before.size if before else 0))

    def _unwait(self, target: _Target[Owner], key: FieldKey) -> None:
        waiting = target.waiting[key[0]]
        value = waiting.values.pop(key[1])
        self._resize(target, key[0], waiting, -value.size)
        if not waiting.values:
            self._leave_queue(target, key[0], waiting)
            del target.waiting[key[0]]

    def _resize(self, target: _Target[Owner], group: str, waiting: _Waiting[Owner], size: int) -> None:
        waiting.size += size
        if target.batch is None and (queue := self._queues.get((target.key[0], group))) is not None:
            queue.grow(target.key[1], size)

    def _enqueue(self, target: _Target[Owner], now: float, *, first: bool = False) -> None:
        if target.batch is not None:
            return
        if target.waiting and target.send_from > now:
            self._not_yet.setdefault(target.send_from, {})[target.key] = None
            return
        kind, target_id = target.key
        for group, waiting in target.waiting.items():
            queue = self._queues.get((kind, group))
            if queue is None:
                queue = self._queues[kind, group] = Queue(self._batch_size, self._most_bytes)
            if target_id in queue:
                continue
            if first:
                queue.enter_first(target_id, waiting.size)
            else:
                queue.enter(target_id, waiting.size, now)
        self._tidy(target)

    def _leave_queues(self, target: _Target[Owner]) -> None:
        for group, waiting in target.waiting.items():
            self._leave_queue(target, group, waiting)
        held = self._not_yet.get(target.send_from, {})
        if target.key in held:
            del held[target.key]
            if not held:
                del self._not_yet[target.send_from]

    def _leave_queue(self, target: _Target[Owner], group: str, waiting: _Waiting[Owner]) -> None:
        queue = self._queues.get((target.key[0], group))
        if queue is not None:
            queue.leave(target.key[1], waiting.size)

    def _let_in(self, now: float) -> None:
        """Let the ids of partitions that may send now wait to be batched."""
        for send_from in [moment for moment in self._not_yet if moment <= now]:
            for key in self._not_yet.pop(send_from):
                self._enqueue(self._targets[key], now)

    def _tidy(self, target: _Target[Owner]) -> None:
        """Forget an id for which nothing waits and nothing is in flight."""
        batch = target.batch
        if target.waiting or (batch is not None and batch.number is None):
            return
        self._leave_queues(target)
        self._targets.pop(target.key, None)
        if batch is not None:
            batch.waiting_ids -= 1
            if not batch.waiting_ids:
                self._retries.drop(batch)

    # What a batch holds

    def _take_fresh(self, now: float) -> Batch | None:
        """A batch of ids that have waited long enough."""
        due = self._due_queues(now)
        return self._take_waiting(*due[0], self._first_ids(*due[0])) if due else None

    def _due_queues(self, now: float) -> list[QueueKey]:
        """The queues whose first ids have waited long enough, the one that was due first at the beginning."""
        self._let_in(now)
        due = [
            (at, key)
            for key, queue in self._queues.items()
            if (at := queue.leaves_at(self._linger)) is not None and at <= now
        ]
        return [key for _, key in sorted(due)]

    def _take_waiting(self, kind: str, group: str, ids: list[str]) -> Batch:
        """A batch of these ids, which wait no longer."""
        batch = Batch(kind, group, ids)
        for target_id in ids:
            target = self._targets[kind, target_id]
            self._leave_queues(target)
            target.batch = batch
        return batch

    def _first_ids(self, kind: str, group: str) -> list[str]:
        """The ids of a queue that fit in one request."""
        ids: list[str] = []
        left = self._most_bytes
        for target_id in self._queues[kind, group]:
            size = self._targets[kind, target_id].waiting[group].size
            if ids and (len(ids) == self._batch_size or size > left):
                break
            ids.append(target_id)
            left -= size
        return ids

    def _sendable(self, target: _Target[Owner], group: str, now: float) -> dict[str, Value[Owner]]:
        """The values of an id that may be sent in one request.

        If there are too many for one, deliveries go in the order of their offsets, each as a whole.
        """
        waiting = target.waiting.get(group)
        if waiting is None or target.send_from > now:
            return {}
        if waiting.size <= self._most_bytes:
            return waiting.values.copy()
        deliveries: dict[tuple[int, int], dict[str, Value[Owner]]] = {}
        for name, value in waiting.values.items():
            deliveries.setdefault((value.item.offset, value.item.partition), {})[name] = value
        in_order = [deliveries[place] for place in sorted(deliveries)]
        room = self._most_bytes - target.record_bytes
        that_fit = takewhile(lambda size: size <= room, accumulate(map(_size, in_order)))
        chosen: dict[str, Value[Owner]] = {}
        for values, _ in zip(in_order, that_fit, strict=False):
            chosen |= values
        return chosen

    def _targets_of(self, batch: Batch, ids: Sequence[str] | None = None) -> list[_Target[Owner]]:
        """The ids of a batch that are still part of it."""
        found = [self._targets.get((batch.target, name)) for name in (batch.ids if ids is None else ids)]
        return [target for target in found if target is not None and target.batch is batch]

    def _release(self, target: _Target[Owner], now: float, *, first: bool = False) -> None:
        """An id leaves its batch."""
        target.batch = None
        self._enqueue(target, now, first=first)


def _size(values: dict[str, Value[Owner]]) -> int:
    return sum(value.size for value in values.values())
