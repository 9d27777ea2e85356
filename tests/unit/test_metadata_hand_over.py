"""Metadata of a partition that is handed over: what one owner settles, and what it leaves to the next owner."""

from __future__ import annotations

from math import inf
from random import Random

import orjson
import pytest

from engine_world import OK, START_MS, acknowledge, in_the_ledger, positions, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits, MetadataSettings, Policy
from flagpost_consumer.core.records import Record
from flagpost_schemas import MetadataValue, VisitorMetadata

POLICY = Policy(
    delivery=DeliverySettings(visitor_interval_seconds=0.0),
    metadata=MetadataSettings(linger_seconds=0.0),
    limits=EndpointLimits(metadata_requests_per_minute=None),
)


def values(offset: int, **fields: MetadataValue) -> Record:
    event = VisitorMetadata(
        event_id=f"e{offset}", occurred_at=START_MS + offset, visitor_id="v", values=fields
    )
    return record(event, offset)


class Owner:
    """An engine that owns the partition, and the ledger. Kafka acknowledges at once while `acknowledges` is true."""

    def __init__(self, before: Owner | None = None) -> None:
        self.engine = Engine(POLICY, Random(1).random)
        self.ledger: list[Settlement] = [] if before is None else before.ledger
        self.seconds: float = 100.0 if before is None else before.seconds + 100.0
        self.acknowledges = True
        (partition,) = self.engine.assign([0], 1, self.instant)
        start = 0 if before is None else positions(before.engine).get(0, before.first_unsettled())
        restoration = Restoration(start, POLICY.dedupe)
        for offset, settlement in enumerate(self.ledger):
            restoration.take(offset, [in_the_ledger(settlement)])
        restoration.finish(len(self.ledger))
        self.engine.restore(partition, restoration)
        self.engine.prove_membership(inf)

    @property
    def instant(self) -> Instant:
        return Instant(self.seconds, START_MS + int(self.seconds * 1000))

    @property
    def reasons(self) -> dict[int, Reason]:
        return {settlement.delivery.record.offset: settlement.ending.reason for settlement in self.ledger}

    def first_unsettled(self) -> int:
        return next(offset for offset in range(100) if offset not in self.reasons)

    def receive(self, *records: Record) -> None:
        self.engine.receive(records, self.instant)

    def act(self, after_seconds: float = 0.0) -> list[Attempt]:
        """Start the requests that are due, and write settlements to the ledger; returns the attempts."""
        self.seconds += after_seconds
        attempts = []
        for _ in range(3):
            actions = self.engine.poll(self.instant)
            attempts += actions.attempts
            self.ledger += actions.settlements
            if self.acknowledges:
                acknowledge(self.engine, actions.settlements)
        return attempts

    def answer(self, attempt: Attempt, answer: Answer = OK) -> None:
        self.engine.answered(attempt, answer, self.instant)

    def send(self, *records: Record) -> Attempt:
        """Take records in, and start the one request that they cause."""
        self.receive(*records)
        (attempt,) = self.act()
        return attempt

    def deliver(self, *records: Record) -> None:
        self.answer(self.send(*records))
        self.act()

    def returned(self) -> int:
        assert self.engine.accounts.difference(Kind.VISITOR_METADATA) == 0
        return self.engine.accounts.returned[Kind.VISITOR_METADATA]


def carried(attempt: Attempt) -> dict[str, MetadataValue]:
    (entry,) = orjson.loads(attempt.body)
    found: dict[str, MetadataValue] = entry["values"]
    return found


def carried_last(owner: Owner, *records: Record) -> dict[str, MetadataValue]:
    """Let the next owner read from the first unsettled record on; returns the last value it sends of each field."""
    owner = Owner(owner)
    owner.receive(*records[owner.first_unsettled() :])
    sent: dict[str, MetadataValue] = {}
    for _ in range(5):
        for attempt in owner.act(1.0):
            sent.update(carried(attempt))
            owner.answer(attempt)
    assert positions(owner.engine) == {0: len(records)}
    return sent


@pytest.mark.parametrize("how", ["revoked", "killed"])
def test_a_value_found_unchanged_is_not_settled_before_one_that_it_supersedes(how: str) -> None:
    """Before the fix, the last record was settled at once, and the one before was sent later: Pendo kept B."""
    records = values(0, p="A"), values(1, p="B", q="X"), values(2, p="A")
    owner = Owner()
    owner.deliver(records[0])
    owner.receive(*records[1:])
    if how == "revoked":
        owner.engine.revoke([0], owner.instant)
    owner.act()
    assert owner.reasons == {0: Reason.OK}
    assert carried_last(owner, *records) == {"p": "A", "q": "X"}


def test_a_value_that_drains_after_one_that_failed_is_handed_back_with_it() -> None:
    """Before the fix, the second record was settled, and the next owner sent the first one, which was handed back."""
    records = values(0, q="x", r=1), values(1, q="x", r=2)
    owner = Owner()
    first = owner.send(records[0])
    owner.receive(records[1])
    owner.engine.drain(owner.instant)
    owner.answer(first, Answer(500))
    for attempt in owner.act(100.0):
        owner.answer(attempt)
    owner.act()
    assert owner.engine.is_drained
    assert (owner.reasons, owner.returned()) == ({}, 2)
    assert carried_last(owner, *records) == {"q": "x", "r": 2}


def test_deliveries_after_one_that_was_handed_back_are_handed_back_although_pendo_took_them() -> None:
    """The middle record has no request of its own: if only it were handed back, its value would be sent last."""
    records = values(0, p=1, q="X"), values(1, p=2), values(2, p=3)
    owner = Owner()
    attempt = owner.send(*records)
    assert carried(attempt) == {"p": 3, "q": "X"}
    owner.engine.revoke([0], owner.instant)
    owner.answer(attempt)
    owner.act()
    assert owner.engine.is_quiet([0])
    assert (owner.reasons, owner.returned()) == ({0: Reason.OK}, 2)
    assert carried_last(owner, *records) == {"p": 3}


def test_a_value_that_equals_the_one_in_flight_is_settled_with_it() -> None:
    owner = Owner()
    attempt = owner.send(values(0, p="A"))
    owner.receive(values(1, p="A"))
    assert owner.act() == []
    assert owner.reasons == {}
    owner.answer(attempt)
    owner.act()
    assert owner.reasons == {0: Reason.OK, 1: Reason.UNCHANGED}
    assert [settlement.delivery.record.offset for settlement in owner.ledger] == [0, 1]


def test_a_value_that_equals_one_whose_request_failed_is_handed_back_with_it() -> None:
    owner = Owner()
    attempt = owner.send(values(0, p="A"))
    owner.receive(values(1, p="A"))
    owner.engine.revoke([0], owner.instant)
    owner.answer(attempt, Answer(500))
    owner.act()
    assert (owner.reasons, owner.returned()) == ({}, 2)


FOLLOWING = values(0, p=1, q="x"), values(1, p=2), values(2, p=3)
"""The third supersedes the second, which may not be settled before the first."""


def drained_while_the_first_fails(owner: Owner) -> None:
    """Drain the owner while its first request fails; the engine has not been polled since."""
    attempt = owner.send(FOLLOWING[0])
    owner.receive(*FOLLOWING[1:])
    owner.engine.drain(owner.instant)
    owner.answer(attempt, Answer(500))


def test_a_superseded_value_is_handed_back_with_the_one_that_it_waited_for() -> None:
    owner = Owner()
    drained_while_the_first_fails(owner)
    owner.act()
    assert (owner.reasons, owner.returned()) == ({}, 2), "the third is still to be sent"
    (third,) = owner.act(100.0)
    owner.answer(third)
    owner.act()
    assert owner.engine.is_drained
    assert (owner.reasons, owner.returned()) == ({}, 3)
    assert carried_last(owner, *FOLLOWING) == {"p": 3, "q": "x"}


def test_deliveries_to_be_handed_back_when_their_partition_is_lost_are_handed_back_once() -> None:
    owner = Owner()
    drained_while_the_first_fails(owner)
    assert owner.engine.forget([0], owner.instant) == 0, "nothing is in flight any more"
    owner.act()
    assert (owner.reasons, owner.returned()) == ({}, 3)
    assert owner.engine.is_drained


def test_a_newer_value_waits_until_the_dead_letter_of_an_older_one_is_written() -> None:
    """Until then, the older value may be read again, and would be sent last."""
    records = values(0, p="bad"), values(1, p="good")
    owner = Owner()
    owner.acknowledges = False
    owner.answer(owner.send(records[0]), Answer(400))
    (dead_letter,) = owner.engine.poll(owner.instant).settlements
    owner.answer(owner.send(records[1]))
    owner.act()
    assert owner.reasons == {}
    owner.engine.acknowledged([dead_letter], 0)
    owner.acknowledges = True
    owner.act()
    assert owner.reasons == {1: Reason.OK}
    assert positions(owner.engine) == {0: 2}
    assert len(owner.engine._metadata._batches._order) == 0


def test_a_newer_value_is_handed_back_with_an_older_one_whose_dead_letter_is_not_written() -> None:
    records = values(0, p="bad"), values(1, p="good")
    owner = Owner()
    owner.answer(owner.send(records[0]), Answer(400))
    assert owner.engine.poll(owner.instant).settlements, "which is not acknowledged"
    owner.deliver(records[1])
    owner.engine.forget([0], owner.instant)
    owner.act()
    assert (owner.reasons, owner.returned()) == ({}, 2)
    assert carried_last(owner, *records) == {"p": "good"}


def test_an_owner_whose_partition_comes_back_does_not_rely_on_what_it_sent_before() -> None:
    """Another owner may have sent another value meanwhile."""
    owner = Owner()
    owner.deliver(values(0, p="A"))
    owner.engine.forget([0], owner.instant)
    (partition,) = owner.engine.assign([0], 1, owner.instant)
    owner.engine.restore(partition, Restoration(1, POLICY.dedupe))
    assert carried(owner.send(values(1, p="A"))) == {"p": "A"}


def test_a_long_series_of_values_is_settled_without_a_deep_stack() -> None:
    """Two thousand values of one field follow one another, twice as many as calls may be nested."""
    owner = Owner()
    attempt = owner.send(values(0, p=0, q="X"))
    owner.receive(*(values(offset, p=offset) for offset in range(1, 2_000)))
    owner.act()
    assert owner.reasons == {}
    owner.answer(attempt)
    (last,) = owner.act()
    assert len(owner.reasons) == 1_999
    assert carried(last) == {"p": 1_999}


def test_fields_without_unsettled_deliveries_do_not_wait() -> None:
    owner = Owner()
    owner.send(values(0, p="A"))
    owner.receive(values(1, q=1), values(2, q=2))
    owner.act()
    assert owner.reasons == {1: Reason.SUPERSEDED}
