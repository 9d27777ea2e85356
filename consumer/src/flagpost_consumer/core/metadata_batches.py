"""Metadata values, coalesced and batched.

In: metadata deliveries in the order of their offsets, and word of each request. Out: batches to send, and how
each delivery ends. For each field of a visitor or account only the newest value by `occurred_at` waits; a
value that Pendo already has is not sent again; and an id has at most one request in flight.

A batch is a list of ids. Its values are gathered when it is sent, so that a batch that is tried again carries
the newest ones.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from flagpost_consumer.core.mapping import Metadata
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.sent_values import Sent, SentValues, field_key, id_key, value_digest
from flagpost_schemas import MetadataValue

_PRECEDENCE = (
    Reason.REJECTED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
)
"""Which reason stands for a delivery none of whose fields was accepted."""


Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Item(Generic[Owner]):
    """One metadata delivery, field by field."""

    owner: Owner
    """Whose delivery it is; of no interest here."""
    metadata: Metadata
    partition: int
    offset: int
    occurred_at: int
    missing: bool
    """Whether some of its fields do not exist in Pendo."""
    open_fields: int = 0
    accepted: bool = False
    endings: list[Ending] = field(default_factory=list)
    removed: bool = False
    """Handed back unsettled; what is in flight of it is of no interest any more."""

    def ending(self) -> Ending:
        """How the delivery ends once no field is open."""
        if self.accepted:
            return DELIVERED
        found = {ending.reason: ending for ending in self.endings}
        if self.missing:
            found.setdefault(Reason.FIELD_MISSING, Ending(Reason.FIELD_MISSING))
        return next(found[reason] for reason in _PRECEDENCE if reason in found)


Age = tuple[int, int]
"""What decides which of two values is newer: occurred_at, then the offset."""


@dataclass(slots=True, eq=False)
class Value(Generic[Owner]):
    """A value that waits for a field, or is on its way."""

    value: MetadataValue
    digest: bytes
    item: Item[Owner]
    age: Age
    """Its own; or that of the newest value that was found to be the same, for which it then stands too."""


FieldKey = tuple[str, str]
"""(group, field)"""
TargetKey = tuple[str, str]
"""(`visitor` or `account`, id)"""
QueueKey = tuple[str, str]
"""(`visitor` or `account`, group)"""


@dataclass(slots=True, eq=False)
class _Target(Generic[Owner]):
    """One visitor or account."""

    waiting: dict[FieldKey, Value[Owner]] = field(default_factory=dict)
    in_flight: dict[FieldKey, Value[Owner]] = field(default_factory=dict)
    busy: bool = False
    """Part of a batch that is in flight or is to be tried again."""


@dataclass(slots=True, eq=False)
class Batch:
    """The ids of one request."""

    target: str
    group: str
    ids: list[str]
    suspected: bool = False
    """Its last answer said that something is set up wrongly."""

    @property
    def who(self) -> str:
        """What tells this batch from others, for the endpoint."""
        return self.ids[0]


class MetadataBatches(Generic[Owner]):
    """All metadata that waits, is in flight, or was sent lately."""

    def __init__(
        self, *, batch_size: int, linger_seconds: float, ttl_seconds: float, max_entries: int
    ) -> None:
        self._batch_size = batch_size
        self._linger = linger_seconds
        self._ttl_ms = int(ttl_seconds * 1000)
        self._max_entries = max_entries
        self._targets: dict[TargetKey, _Target[Owner]] = {}
        self._queues: dict[QueueKey, OrderedDict[str, float]] = {}
        self._retries: list[tuple[float, int, Batch]] = []
        self._number = 0
        self._sent: dict[int, SentValues] = {}
        self.ended: list[tuple[Item[Owner], Ending]] = []
        """Deliveries that have ended since this was last emptied; the engine empties it."""

    # Deliveries

    def offer(self, item: Item[Owner], now: float) -> None:
        """Take in one delivery."""
        metadata = item.metadata
        target = self._targets.setdefault((metadata.target, metadata.target_id), _Target())
        item.open_fields = len(metadata.values)
        for name, content in metadata.values.items():
            value = Value(content, value_digest(content), item, (item.occurred_at, item.offset))
            self._offer_field(target, (metadata.group, name), value)
        self._enqueue(metadata.target, metadata.target_id, target, now)

    def remove(self, items: Iterable[Item[Owner]]) -> None:
        """Hand back deliveries: their values are not sent any more, and answers say nothing of them."""
        for item in items:
            item.removed = True
            key = (item.metadata.target, item.metadata.target_id)
            if (target := self._targets.get(key)) is None:
                continue
            for name in item.metadata.values:
                waiting = target.waiting.get((item.metadata.group, name))
                if waiting is not None and waiting.item is item:
                    del target.waiting[item.metadata.group, name]
                flying = target.in_flight.get((item.metadata.group, name))
                if flying is not None and flying.item is item:
                    del target.in_flight[item.metadata.group, name]
            self._tidy(key, target)

    def forget_partition(self, partition: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        self._sent.pop(partition, None)

    def is_in_flight(self, item: Item[Owner]) -> bool:
        """Whether a request that carries a value of this delivery is under way."""
        target = self._targets.get((item.metadata.target, item.metadata.target_id))
        return target is not None and any(value.item is item for value in target.in_flight.values())

    # Batches

    def flush(self, now: float) -> None:
        """Send what waits without lingering from now on."""
        self._linger = 0.0
        self._retries = [(now, number, batch) for _, number, batch in self._retries]
        heapq.heapify(self._retries)

    def due_at(self, now: float) -> float | None:
        """When a batch is to be sent: `now` if at once, None if nothing waits."""
        moments = [self._leaves_at(queue) for queue in self._queues.values() if queue]
        if self._retries:
            moments.append(self._retries[0][0])
        return max(now, min(moments)) if moments else None

    def take(self, now: float, avoid: str | None = None) -> Batch | None:
        """Give a batch that is to be sent now; another than `avoid`'s first, if there is one."""
        fresh = self._take_fresh(now)
        if fresh is not None and fresh.who != avoid:
            return fresh
        again = self._take_retry(now)
        if again is None:
            return fresh
        if fresh is not None:
            self.again(fresh, now)
        return again

    def gather(self, batch: Batch, now: float) -> list[tuple[str, dict[str, MetadataValue]]]:
        """Take the newest values of a batch's ids into flight; ids with none left leave the batch."""
        records = []
        for target_id in batch.ids:
            target = self._targets[batch.target, target_id]
            taken = {key: value for key, value in target.waiting.items() if key[0] == batch.group}
            for key, value in taken.items():
                del target.waiting[key]
                target.in_flight[key] = value
            if taken:
                records.append((target_id, {key[1]: value.value for key, value in taken.items()}))
        left = {target_id for target_id, _ in records}
        for target_id in batch.ids:
            if target_id not in left:
                self._release(batch.target, target_id, now)
        batch.ids = [target_id for target_id, _ in records]
        return records

    def items(self, batch: Batch) -> list[Item[Owner]]:
        """The deliveries that have a value in flight in a batch."""
        values = [value for key in self._keys(batch) for value in self._targets[key].in_flight.values()]
        return list({id(value.item): value.item for value in values}.values())

    # Answers

    def accepted(self, batch: Batch, ids: Sequence[str], now: float) -> None:
        """Pendo took the values of these ids."""
        for target_id in ids:
            target = self._targets[batch.target, target_id]
            for key, value in target.in_flight.items():
                self._remember(batch.target, target_id, key, value)
                value.item.accepted = True
                self._close(value.item)
            self._done(batch, target_id, target, now)

    def refused(self, batch: Batch, target_id: str, ending: Ending, now: float) -> None:
        """The values of one id end undelivered."""
        target = self._targets[batch.target, target_id]
        for value in target.in_flight.values():
            value.item.endings.append(ending)
            self._close(value.item)
        self._done(batch, target_id, target, now)

    def again(
        self, batch: Batch, at: float, give_up: Callable[[Item[Owner]], Ending | None] | None = None
    ) -> None:
        """Try a batch again at a time, but for the deliveries that `give_up` has an ending for."""
        for key in self._keys(batch):
            target = self._targets[key]
            flying, target.in_flight = target.in_flight, {}
            for group_and_name, value in flying.items():
                self._doubt(key, group_and_name, value)
                ending = give_up(value.item) if give_up else None
                self._back(target, group_and_name, value, ending)
        self._number += 1
        heapq.heappush(self._retries, (at, self._number, batch))

    def split(self, batch: Batch, ids: Sequence[str], now: float) -> None:
        """Try these ids of a batch again at once, in two halves."""
        middle = (len(ids) + 1) // 2
        for half in (ids[:middle], ids[middle:]):
            if half:
                self.again(Batch(batch.target, batch.group, list(half)), now)

    def withdraw_suspected(self, who: str) -> Batch | None:
        """Give the batch that turned out to be poison, out of those that wait to be tried again."""
        for entry in self._retries:
            if entry[2].suspected and entry[2].who == who:
                self._retries.remove(entry)
                heapq.heapify(self._retries)
                return entry[2]
        return None

    # Inside

    def _offer_field(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> None:
        waiting = target.waiting.get(key)
        flying = target.in_flight.get(key)
        if any(other is not None and other.age > value.age for other in (waiting, flying)):
            self._end_field(value, Reason.SUPERSEDED)
            return
        if waiting is not None:
            # The newer value also stands where the older one waited, should it turn out to be unchanged.
            del target.waiting[key]
            self._end_field(waiting, Reason.SUPERSEDED)
        reason = self._known(target, key, value)
        if reason is None:
            target.waiting[key] = value
        else:
            self._end_field(value, reason)

    def _known(self, target: _Target[Owner], key: FieldKey, value: Value[Owner]) -> Reason | None:
        """Why a value need not be sent, judged by the last one that was.

        A value that is the same lends that one its age: what is older than either is superseded.
        """
        flying = target.in_flight.get(key)
        if flying is not None:
            near = abs(flying.age[0] - value.age[0]) < self._ttl_ms
            if not near or flying.digest != value.digest:
                return None
            flying.age = value.age
            return Reason.UNCHANGED
        metadata = value.item.metadata
        sent_values = self._sent_values(value.item.partition)
        whose, field = id_key(metadata.target, metadata.target_id), field_key(*key)
        sent = sent_values.near(whose, field, value.age[0])
        if sent is None:
            return None
        if (sent.occurred_at, sent.offset) > value.age:
            return Reason.SUPERSEDED
        if sent.digest != value.digest:
            return None
        sent_values.remember(whose, Sent(field, *value.age, value.digest))
        return Reason.UNCHANGED

    def _end_field(self, value: Value[Owner], reason: Reason) -> None:
        value.item.endings.append(Ending(reason))
        self._close(value.item)

    def _close(self, item: Item[Owner]) -> None:
        item.open_fields -= 1
        if item.open_fields == 0 and not item.removed:
            self.ended.append((item, item.ending()))

    def _back(
        self, target: _Target[Owner], key: FieldKey, value: Value[Owner], ending: Ending | None
    ) -> None:
        """A value comes back from a request that failed."""
        if ending is not None:
            value.item.endings.append(ending)
            self._close(value.item)
        elif key in target.waiting:
            self._end_field(value, Reason.SUPERSEDED)
        elif not value.item.removed:
            target.waiting[key] = value

    def _remember(self, target: str, target_id: str, key: FieldKey, value: Value[Owner]) -> None:
        if not value.item.removed:
            self._sent_values(value.item.partition).remember(
                id_key(target, target_id), Sent(field_key(*key), *value.age, value.digest)
            )
            self._make_room()

    def _make_room(self) -> None:
        """Keep what is remembered within the limit of the process: the partition with the most forgets."""
        while sum(map(len, self._sent.values())) > self._max_entries:
            max(self._sent.values(), key=len).forget_older()

    def _doubt(self, target: TargetKey, key: FieldKey, value: Value[Owner]) -> None:
        """Pendo may have taken this value although nobody said so: what it has is not known any more."""
        self._sent_values(value.item.partition).doubt(id_key(*target), field_key(*key))

    def _sent_values(self, partition: int) -> SentValues:
        if partition not in self._sent:
            self._sent[partition] = SentValues(self._ttl_ms)
        return self._sent[partition]

    def _enqueue(self, kind: str, target_id: str, target: _Target[Owner], now: float) -> None:
        if target.busy:
            return
        if not target.waiting:
            self._tidy((kind, target_id), target)
        for group in {key[0] for key in target.waiting}:
            self._queues.setdefault((kind, group), OrderedDict()).setdefault(target_id, now)

    def _take_fresh(self, now: float) -> Batch | None:
        for (kind, group), queue in self._queues.items():
            if queue and self._leaves_at(queue) <= now:
                due = (target_id for target_id, since in queue.items() if since <= now)
                ids = list(islice(due, self._batch_size))
                for target_id in ids:
                    self._targets[kind, target_id].busy = True
                    self._leave_queues(kind, target_id)
                return Batch(kind, group, ids)
        return None

    def _leaves_at(self, queue: OrderedDict[str, float]) -> float:
        """When a queue's first ids go: once they are enough for a batch, or have waited for company."""
        since = next(iter(queue.values()))
        return since if len(queue) >= self._batch_size else since + self._linger

    def _leave_queues(self, kind: str, target_id: str) -> None:
        for (queue_kind, _), queue in self._queues.items():
            if queue_kind == kind:
                queue.pop(target_id, None)

    def _take_retry(self, now: float) -> Batch | None:
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        return None

    def _keys(self, batch: Batch) -> list[TargetKey]:
        return [(batch.target, target_id) for target_id in batch.ids]

    def _done(self, batch: Batch, target_id: str, target: _Target[Owner], now: float) -> None:
        target.in_flight = {}
        target.busy = False
        self._enqueue(batch.target, target_id, target, now)

    def _release(self, kind: str, target_id: str, now: float) -> None:
        """An id leaves a batch without a request."""
        target = self._targets[kind, target_id]
        target.busy = False
        self._enqueue(kind, target_id, target, now)

    def _tidy(self, key: TargetKey, target: _Target[Owner]) -> None:
        if not target.waiting and not target.busy:
            self._leave_queues(*key)
            del self._targets[key]
