"""Metadata deliveries: which values would be sent, and which would be superseded or unchanged.

In: planned metadata deliveries of one member's stay in the order of their offsets, and how each ended according to
the ledger. Out: how each would end, by the engine's own `MetadataBatches`.

What becomes of a value depends on what waited or was in flight for the same id when it came. The ledger does not say
when requests started; it says when deliveries ended, and for which of them Pendo was asked. So a value that was sent
waits until its end, or until a value comes that would have replaced it if it still waited; only then is it sent. The
engine decides which value is newer, equal, or too old to matter.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flagpost_consumer.commands.rehearse.differences import LeftOut
from flagpost_consumer.commands.rehearse.recorded import Recorded
from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.batches import MetadataBatches
from flagpost_consumer.core.metadata.retries import Batch
from flagpost_consumer.core.outcomes import Ending, Kind, Outcome, Reason
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_consumer.core.policy import Policy

MAX_OPEN = 100_000
"""Limit of deliveries that were sent and have not ended here, about 1 KB each; beyond it the next ones end early."""
MAX_UNCLEAR = 100_000
"""Limit of ids about which something is unclear; beyond it the oldest are forgotten."""
NOW = 0.0
"""Nothing here waits to be batched, and nothing is retried, so all calls can use the same moment."""

OnEnding = Callable[["Due", Reason | LeftOut], None]
"""Called with how a delivery would end, or why that is unknown."""
HANGS_ON_TIME = frozenset(
    {Reason.OK, Reason.REJECTED, Reason.ATTEMPTS_EXHAUSTED, Reason.SUPERSEDED, Reason.UNCHANGED}
)
"""Which of these reasons applies may depend on what was in flight."""


@dataclass(slots=True, eq=False)
class Due:
    """One metadata delivery."""

    offset: int
    kind: Kind
    metadata: Metadata
    occurred_at: int
    came_ms: int
    """When its record was produced."""
    recorded: Recorded | None
    is_judged: bool
    """False: it ended in another member's stay, or has not ended. Here it only affects the others."""
    event_id: str
    item: Item[Due] | None = None
    """Set while `MetadataBatches` has it."""
    replaced: set[str] = field(default_factory=set)
    """Its fields for which a newer value came."""
    has_failed: bool = False
    """Whether a request with it failed."""
    has_ended: bool = False

    @property
    def known(self) -> Recorded | None:
        """How it ended in this stay; None: it did not."""
        return self.recorded if self.is_judged else None

    @property
    def was_in_flight(self) -> bool:
        """Whether it was in flight at least once, as far as known."""
        return self.known is None or self.known.was_sent

    @property
    def was_answered(self) -> bool:
        """Whether a request with it got a final answer."""
        return self.known is not None and self.known.was_answered

    def shares_field(self, other: Due) -> bool:
        """Whether this and another delivery of the same id set a common field."""
        ours, theirs = self.metadata, other.metadata
        return ours.group == theirs.group and not ours.values.keys().isdisjoint(theirs.values)

    def is_older_than(self, other: Due) -> bool:
        """By time, then by offset."""
        return (self.occurred_at, self.offset) < (other.occurred_at, other.offset)


@dataclass(slots=True)
class _Line:
    """The deliveries of one id that have not ended, in the order of their offsets."""

    waiting: list[Due] = field(default_factory=list)
    in_flight: list[Due] = field(default_factory=list)
    batch: Batch | None = None
    """The request that is in flight."""


class MetadataStay:
    """The metadata of one partition in one member's stay."""

    def __init__(self, policy: Policy, partition: int, on_ending: OnEnding) -> None:
        self._partition = partition
        self._on_ending = on_ending
        self._batches: MetadataBatches[Due] = MetadataBatches(
            batch_size=1,
            batch_bytes=policy.metadata.batch_bytes,
            linger_seconds=0.0,
            ttl_seconds=policy.dedupe.ttl_seconds,
            max_entries=policy.dedupe.max_entries,
        )
        self._lines: dict[tuple[str, str], _Line] = {}
        self._ends: list[tuple[int, int, Due]] = []
        """Sent deliveries, by the time of their settlement, and by offset."""
        self._ttl_ms = int(policy.dedupe.ttl_seconds * 1000)
        self._unclear: dict[tuple[str, str], int] = {}
        """Ids of which it is not known what their deliveries met, and until when, epoch ms."""
        self._newest_ms = 0
        self.open = 0
        """Deliveries to be judged that have not ended."""

    def has(self, key: tuple[str, str]) -> bool:
        """Whether anything of an id has not ended."""
        return key in self._lines

    def take(self, due: Due) -> None:
        """Take in a delivery."""
        self.open += due.is_judged
        self._newest_ms = max(self._newest_ms, due.came_ms)
        self._end_before(due.came_ms)
        line = self._lines.setdefault(due.metadata.key, _Line())
        self._note_unclear(line, due)
        self._move_on(line, due)
        for each in line.waiting:
            if each.shares_field(due) and each.is_older_than(due):
                each.replaced.update(due.metadata.values)
        line.waiting.append(due)
        with_engine = self._bring_in(line.waiting)
        self._take_out(line, with_engine)
        if due in line.waiting:
            self._place(line, due)
        self._tidy(due.metadata.key, line)

    def end_all(self) -> None:
        """Nothing more comes that was settled in this stay."""
        while self._ends:
            self._end_first()

    def finish(self) -> None:
        """Nothing more comes at all."""
        self.end_all()
        for line in self._lines.values():
            for each in list(line.waiting):
                if each.known is not None and each.known.settled_at < self._newest_ms:
                    self._send_at_once(line, each)
                else:
                    self._end(each, LeftOut.NOT_COVERED)
        self._lines.clear()

    # What the ledger cannot tell

    def doubt(self, due: Due) -> None:
        """Note that it is not known what a delivery met, nor what met it."""
        known, key = due.recorded, due.metadata.key
        until = (due.came_ms if known is None else max(due.came_ms, known.settled_at)) + self._ttl_ms
        self._unclear[key] = max(until, self._unclear.pop(key, 0))
        if len(self._unclear) > MAX_UNCLEAR:
            del self._unclear[next(iter(self._unclear))]

    def _note_unclear(self, line: _Line, due: Due) -> None:
        """Note a delivery as unclear if requests for its id fail when it comes, or if others wait that share only
        some of its fields.

        The ledger does not say when a request failed, nor which of several fields went with which request.
        """
        met = [*line.waiting, *line.in_flight]
        if _failed(due) or any(_failed(each) or _shares_some(each, due) for each in met):
            self.doubt(due)

    def _is_unclear(self, due: Due, reason: Reason | LeftOut) -> bool:
        known = due.known
        return (
            known is not None
            and known.reason is not reason
            and {known.reason, reason} <= HANGS_ON_TIME
            and due.came_ms <= self._unclear.get(due.metadata.key, -1)
        )

    # What happened before a record came

    def _end_before(self, came_ms: int) -> None:
        while self._ends and (self._ends[0][0] < came_ms or len(self._ends) > MAX_OPEN):
            self._end_first()

    def _end_first(self) -> None:
        due = heapq.heappop(self._ends)[2]
        line = self._lines.get(due.metadata.key)
        if line is None or due.has_ended:
            return
        if due not in line.in_flight and due.known is not None and due.known.was_answered:
            self._start(line, due)
        if due in line.in_flight:
            self._answer(line)
        self._tidy(due.metadata.key, line)

    def _move_on(self, line: _Line, due: Due) -> None:
        """End what had already ended when a delivery came, as far as that is known."""
        if any(_had_landed(each, due) for each in line.in_flight):
            self._answer(line)
        for each in [other for other in line.waiting if other.shares_field(due)]:
            known = each.known
            if known is not None and not known.was_answered and known.settled_at < due.came_ms:
                # It had ended before this one came to replace it, but nothing has ended it here.
                self._send_at_once(line, each)
            elif each in line.waiting and _had_failed(each, due):
                self._start(line, each)
                self._fail(line)
            if each in line.waiting and _had_gone(each, due):
                self._start(line, each)
                if _had_landed(each, due):
                    self._answer(line)

    # Where a new delivery goes

    def _place(self, line: _Line, due: Due) -> None:
        known = due.known
        if due.is_judged and (known is None or not (known.was_sent or known.reason is Reason.SUPERSEDED)):
            self._send_at_once(line, due)
        elif known is not None and known.was_sent:
            heapq.heappush(self._ends, (known.settled_at, due.offset, due))

    def _send_at_once(self, line: _Line, due: Due) -> None:
        """Send what was not sent then; assume that Pendo accepts it."""
        self._answer(line)
        if due not in line.waiting:
            return
        line.waiting.remove(due)
        self._bring_in([due])
        if not self._is_over(due):
            batch = self._take_off(due)
            self._batches.accepted(batch, batch.ids, NOW)
        self._end(due, self._reason_of(due))

    def _start(self, line: _Line, due: Due) -> None:
        """Start the request that a delivery was in, with those that ended together with it."""
        self._answer(line)
        if due not in line.waiting:
            return
        line.in_flight = [each for each in line.waiting if each is due or _went_together(each, due)]
        line.waiting = [each for each in line.waiting if each not in line.in_flight]
        self._bring_in(line.in_flight)
        over = [each for each in line.in_flight if self._is_over(each)]
        line.in_flight = [each for each in line.in_flight if each not in over]
        for each in over:
            self._end(each, self._reason_of(each))
        if line.in_flight:
            line.batch = self._take_off(line.in_flight[0])

    def _answer(self, line: _Line) -> None:
        """End the request in flight, if any, as the ledger says."""
        batch, flown, line.batch, line.in_flight = line.batch, line.in_flight, None, []
        if batch is None:
            return
        known = flown[0].known
        if known is None:
            self._batches.remove([each.item for each in flown if each.item is not None])
            self._batches.disband(batch, NOW)
            for each in flown:
                each.item = None
            return
        if known.reason is Reason.OK:
            self._batches.accepted(batch, batch.ids, NOW)
        elif known.was_answered:
            self._batches.refused(batch, batch.ids[0], Ending(known.reason), NOW)
        else:
            self._come_back(line, flown, batch)
            return
        for each in flown:
            self._end(each, self._reason_of(each))

    def _fail(self, line: _Line) -> None:
        """The request in flight fails: its deliveries wait again."""
        batch, flown, line.batch, line.in_flight = line.batch, line.in_flight, None, []
        if batch is not None:
            self._come_back(line, flown, batch)

    def _come_back(self, line: _Line, flown: list[Due], batch: Batch) -> None:
        self._batches.disband(batch, NOW)
        line.waiting = sorted([*line.waiting, *flown], key=lambda each: each.offset)
        for each in flown:
            each.has_failed = True
        self._take_out(line, flown)
        self._take_out(line, self._bring_in(line.waiting))

    # The engine's part

    def _bring_in(self, dues: Iterable[Due]) -> list[Due]:
        """Offer deliveries to the engine's part."""
        brought = list(dues)
        for due in brought:
            due.item = Item(due, due.metadata, self._partition, due.offset, due.occurred_at, missing=False)
            self._batches.offer(due.item, NOW)
        return brought

    def _take_out(self, line: _Line, dues: Iterable[Due]) -> None:
        """End the deliveries that are over, and withdraw the others: they must not be sent with the next ones."""
        for due in list(dues):
            if self._is_over(due):
                line.waiting.remove(due)
                self._end(due, self._reason_of(due))
            elif due.item is not None:
                self._batches.remove([due.item])
                due.item = None

    def _take_off(self, due: Due) -> Batch:
        """Put what waits into flight; it belongs to one id."""
        batch = self._batches.take(NOW)
        if batch is None or batch.ids != [due.metadata.target_id]:
            raise AssertionError("another value waits than the one that is to be sent")
        self._batches.gather(batch, NOW)
        return batch

    def _is_over(self, due: Due) -> bool:
        """Whether all fields of a delivery have ended."""
        for item, ending in self._batches.take_ended():
            if ending.reason.outcome is Outcome.DEAD_LETTERED:
                self._batches.acknowledge(item)  # what follows it must not wait
            if not item.endings and not item.accepted:
                item.endings.append(ending)
        self._batches.take_returned()
        mine = due.item
        return mine is not None and mine.open_fields == 0

    def _reason_of(self, due: Due) -> Reason:
        """How a delivery ended; all its fields have ended."""
        assert due.item is not None  # noqa: S101 - it is with the engine's part
        return due.item.ending().reason

    def _end(self, due: Due, reason: Reason | LeftOut) -> None:
        if due.is_judged and not due.has_ended:
            due.has_ended = True
            self.open -= 1
            self._on_ending(due, LeftOut.UNCLEAR if self._is_unclear(due, reason) else reason)

    def _tidy(self, key: tuple[str, str], line: _Line) -> None:
        if not line.waiting and line.batch is None:
            self._lines.pop(key, None)


def _failed(due: Due) -> bool:
    """Whether a request with it failed or was refused."""
    known = due.known
    return known is not None and known.was_sent and (known.was_retried or known.reason is not Reason.OK)


def _shares_some(one: Due, other: Due) -> bool:
    """Whether two share some fields, but not all."""
    return one.shares_field(other) and one.metadata.values.keys() != other.metadata.values.keys()


def _is_same(one: Due, other: Due) -> bool:
    """Whether two have equal values in the fields that both set."""
    ours, theirs = one.metadata.values, other.metadata.values
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _had_gone(waiting: Due, due: Due) -> bool:
    """Whether a waiting delivery must have been in flight when a newer one came: otherwise the two would have ended
    differently.
    """
    if not waiting.was_in_flight or not waiting.is_older_than(due):
        return False
    if due.known is not None and due.known.reason is Reason.UNCHANGED:
        return _is_same(waiting, due)
    if not waiting.was_answered:
        return False
    is_replaced = not waiting.metadata.values.keys() - waiting.replaced - due.metadata.values.keys()
    return is_replaced or (
        due.was_in_flight and not _is_same(waiting, due) and not _went_together(waiting, due)
    )


def _had_failed(waiting: Due, due: Due) -> bool:
    """Whether a waiting delivery must have been in flight before a newer one came, and returned."""
    known = waiting.known
    if known is None or waiting.has_failed or not known.was_sent or not waiting.is_older_than(due):
        return False
    is_over = due.known is not None and due.known.reason is Reason.UNCHANGED
    if is_over or (_is_same(waiting, due) and len(due.metadata.values) > 1):
        return False
    return known.was_retried or not known.was_answered


def _had_landed(flown: Due, due: Due) -> bool:
    """Whether the request with one delivery must have been answered before another came."""
    if not flown.shares_field(due) or due.known is None:
        return False
    if due.known.was_sent:
        return True
    if flown.known is None or flown.known.reason is Reason.OK or due.known.reason is Reason.UNCHANGED:
        return False
    return not _is_same(flown, due) or len(due.metadata.values) == 1


def _went_together(each: Due, due: Due) -> bool:
    """Whether two may have been answered in one request."""
    ours, theirs = each.known, due.known
    return (
        ours is not None
        and theirs is not None
        and ours.was_answered
        and each.metadata.group == due.metadata.group
        and (ours.reason, ours.settled_at) == (theirs.reason, theirs.settled_at)
    )
