"""Accounts and positions while a delivery starts, is retried, ends, is acknowledged, and is read a second time."""

from __future__ import annotations

import pytest

from engine_steps import (
    NO_LINGER,
    TRACKS_ONLY,
    attempts_at,
    damaged,
    engine_with,
    instant,
    metadata,
    settle_all,
    visitors,
)
from engine_world import OK, START_MS, acknowledge, decision, positions, record
from flagpost_consumer.core.books.deliveries import Partition, each_settled
from flagpost_consumer.core.books.restoration import Restoration, Settled
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DedupeSettings, Policy
from flagpost_consumer.core.record_weights import HEADER_BYTES
from flagpost_consumer.core.records import DecodeFailure, Gap
from flagpost_schemas import AccountMetadata, Event

NO_DEDUPE = Policy(dedupe=DedupeSettings(ttl_seconds=0.0))


def restored(position: int, *settled: Settled, policy: Policy = NO_DEDUPE) -> tuple[Engine, Partition]:
    """An engine with a partition of which the ledger settles these deliveries from the committed position on."""
    engine = engine_with(policy, partitions=[])
    (partition,) = engine.assign([0], 8, instant(0.0))
    restoration = Restoration(position, policy.dedupe)
    restoration.take(0, settled)
    restoration.finish(1)
    engine.restore(partition, restoration)
    return engine, partition


def delivered(offset: int, kind: Kind) -> Settled:
    return offset, kind, Outcome.DELIVERED, None, START_MS


# Read again


def test_a_record_that_the_ledger_settles_completely_is_skipped() -> None:
    engine, _ = restored(5, delivered(5, Kind.TRACK), delivered(5, Kind.VISITOR_METADATA))
    engine.receive([record(decision("v"), 5)], instant(1.0))
    assert (engine.accounts.records, engine.accounts.redeliveries) == (1, 1)
    assert engine.accounts.planned == {}
    assert engine.pending_records == 0
    assert positions(engine) == {0: 6}, "it need not be read a third time"


def test_a_skipped_record_neither_holds_the_position_nor_moves_it_past_a_pending_record() -> None:
    engine, _ = restored(5, delivered(6, Kind.TRACK), delivered(6, Kind.VISITOR_METADATA))
    engine.receive([damaged(5), record(decision("v"), 6)], instant(1.0))
    assert positions(engine) == {0: 5}
    acknowledge(engine, engine.poll(instant(1.0)).settlements)
    assert positions(engine) == {0: 7}


def test_a_record_is_taken_in_once_however_often_it_is_read() -> None:
    engine = engine_with(TRACKS_ONLY)
    for offset in (0, 1, 0, 1, 2, 1):
        engine.receive([record(decision(f"v{offset}"), offset)], instant(1.0))
    assert engine.accounts.planned == {Kind.TRACK: 3}
    assert engine.pending_records == 3


# Gaps


def test_lost_offsets_hold_the_position_until_they_are_in_the_ledger() -> None:
    engine, partition = restored(100)
    gap = Gap(100, 250)
    engine.lose(partition, gap)
    assert engine.accounts.offsets_lost == 150
    assert (positions(engine), engine.pending_records) == ({0: 100}, 1)
    assert not engine.is_quiet([0]), "a hand-over waits for it"
    engine.receive([damaged(249), damaged(250)], instant(1.0))
    assert engine.accounts.records == 1, "what is lost is not taken in"
    engine.gap_written(partition, gap)
    acknowledge(engine, engine.poll(instant(1.0)).settlements)
    assert (positions(engine), engine.pending_records) == ({0: 251}, 0)
    assert engine.is_quiet([0])


def test_a_gap_of_a_partition_that_was_given_up_meanwhile_changes_no_count() -> None:
    engine, partition = restored(100)
    gap = Gap(100, 250)
    engine.lose(partition, gap)
    assert engine.forget([0], instant(1.0)) == 0
    assert engine.pending_records == 0
    engine.gap_written(partition, gap)
    assert engine.pending_records == 0


def test_several_gaps_are_counted_and_written_separately() -> None:
    engine, partition = restored(100)
    gaps = [Gap(100, 250), Gap(250, 255), Gap(260, 262)]
    for gap in gaps:
        engine.lose(partition, gap)
    assert (engine.accounts.offsets_lost, engine.pending_records) == (157, 3)
    for left, gap in zip((2, 1, 0), gaps, strict=True):
        engine.gap_written(partition, gap)
        assert (engine.pending_records, engine.is_quiet([0])) == (left, not left)


def test_each_skipped_record_is_counted() -> None:
    engine, _ = restored(5, *(delivered(offset, Kind.TRACK) for offset in (5, 6, 7)), policy=TRACKS_ONLY)
    engine.receive([record(decision("v", f"f{offset}"), offset) for offset in (5, 6, 7)], instant(1.0))
    assert (engine.accounts.records, engine.accounts.redeliveries) == (3, 3)


# Bytes


def test_a_record_holds_its_bytes_until_the_last_of_its_deliveries_is_acknowledged() -> None:
    engine = engine_with(NO_LINGER)
    made = record(decision("v"))._replace(
        key=b"v", value=b"x" * 100, headers=(("trace", b"12345"), ("t", None))
    )
    engine.receive([made], instant(0.0))
    held = 1 + 100 + len("trace") + 5 + len("t") + 2 * HEADER_BYTES
    assert engine.pending_bytes == held
    for attempt in engine.poll(instant(1.0)).attempts:
        engine.answered(attempt, OK, instant(1.1))
    first, second = engine.poll(instant(1.1)).settlements
    acknowledge(engine, [first])
    assert engine.pending_bytes == held
    acknowledge(engine, [second])
    assert engine.pending_bytes == 0


def test_returned_skipped_and_lost_records_hold_no_bytes() -> None:
    engine, partition = restored(5, delivered(5, Kind.TRACK), delivered(5, Kind.VISITOR_METADATA))
    engine.receive([record(decision("v"), 5)], instant(0.0))
    engine.lose(partition, Gap(6, 9))
    assert engine.pending_bytes == 0
    engine.receive([record(decision("v"), 9), damaged(10)], instant(0.0))
    assert engine.pending_bytes == 2 * len(b"original") + len(b"v") + len(b"damaged")
    engine.forget([0], instant(0.0))
    assert engine.pending_bytes == 0


# From the start to the end


def test_a_partition_is_busy_from_the_start_of_a_request_to_its_acknowledged_end() -> None:
    engine = engine_with(TRACKS_ONLY)
    assert engine.is_quiet()
    engine.receive([record(decision("v"))], instant(0.0))
    assert engine.is_quiet([0])
    (attempt,) = engine.poll(instant(1.0)).attempts
    assert not engine.is_quiet([0])
    engine.answered(attempt, Answer(503), instant(1.1))
    assert engine.is_quiet([0]), "what waits for another try is handed back at once"
    (attempt,) = engine.poll(instant(60.0)).attempts
    engine.answered(attempt, OK, instant(60.1))
    assert not engine.is_quiet([0])
    acknowledge(engine, engine.poll(instant(60.1)).settlements)
    assert engine.is_quiet([0])
    assert positions(engine) == {0: 1}


def test_poll_returns_a_settlement_once_and_it_is_counted_once() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([damaged(0)], instant(0.0))
    settlements = engine.poll(instant(0.0)).settlements
    assert len(settlements) == 1
    assert engine.poll(instant(0.0)).settlements == []
    assert engine.accounts.pending == {Kind.UNKNOWN: 1}, "pending until Kafka has it"
    for _ in range(2):
        acknowledge(engine, settlements)
    assert engine.accounts.total(Kind.UNKNOWN, Outcome.DEAD_LETTERED) == 1
    assert engine.accounts.pending.total() == 0
    assert engine.accounts.difference(Kind.UNKNOWN) == 0
    assert engine.pending_records == 0
    assert engine.is_quiet()


@pytest.mark.parametrize("first", [Kind.TRACK, Kind.VISITOR_METADATA])
def test_a_record_is_settled_when_the_last_of_its_deliveries_is(first: Kind) -> None:
    engine = engine_with(NO_LINGER)
    engine.receive([record(decision("v"))], instant(0.0))
    for attempt in engine.poll(instant(1.0)).attempts:
        engine.answered(attempt, OK, instant(1.1))
    by_kind = {each.delivery.kind: each for each in engine.poll(instant(1.1)).settlements}
    assert set(by_kind) == {Kind.TRACK, Kind.VISITOR_METADATA}
    acknowledge(engine, [by_kind.pop(first)])
    assert (positions(engine), engine.pending_records) == ({0: 0}, 1)
    acknowledge(engine, by_kind.values())
    assert (positions(engine), engine.pending_records) == ({0: 1}, 0)


def test_a_settlement_is_dated_by_the_wall_clock() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([damaged(0)], instant(7.0))
    (settlement,) = engine.poll(instant(9.0)).settlements
    assert settlement.settled_at_ms == START_MS + 7_000


def test_a_settlement_has_the_number_of_its_attempts() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("v"))], instant(0.0))
    for at, answer in ((1.0, Answer(503)), (60.0, OK)):
        (attempt,) = engine.poll(instant(at)).attempts
        engine.answered(attempt, answer, instant(at))
    (settlement,) = engine.poll(instant(60.0)).settlements
    (told,) = each_settled(settlement)
    assert (told.record.offset, told.kind, told.ending.reason, told.attempts) == (0, Kind.TRACK, Reason.OK, 2)


@pytest.mark.parametrize(
    ("event", "who"),
    [
        (metadata("visitor", plan="pro"), "visitor"),
        (
            AccountMetadata(event_id="e", occurred_at=START_MS, account_id="account", values={"n": 1}),
            "account",
        ),
        (DecodeFailure(Reason.UNDECODABLE, "cut short"), ""),
    ],
)
def test_a_delivery_names_its_visitor_or_account(event: Event | DecodeFailure, who: str) -> None:
    engine = engine_with(NO_LINGER)
    engine.receive([record(event)], instant(0.0))
    assert settle_all(engine, 1.0)[0].delivery.who == who


# Claims


def test_a_delivery_that_ends_undelivered_frees_its_claim_and_a_delivered_one_keeps_it() -> None:
    engine = engine_with(TRACKS_ONLY)
    for offset, (visitor, answer) in enumerate((("refused", Answer(400)), ("taken", OK))):
        engine.receive([record(decision(visitor), offset)], instant(1.0 + offset))
        (attempt,) = attempts_at(engine, 1.0 + offset)
        engine.answered(attempt, answer, instant(1.0 + offset))
        acknowledge(engine, engine.poll(instant(1.0 + offset)).settlements)
    engine.receive([record(decision("refused"), 2), record(decision("taken"), 3)], instant(4.0))
    actions = engine.poll(instant(4.0))
    (duplicate,) = actions.settlements
    assert (duplicate.delivery.record.offset, duplicate.ending.duplicate_of) == (3, 1)
    assert visitors(actions.attempts) == ["refused"]


def test_giving_up_a_partition_frees_only_its_own_claims() -> None:
    """Metadata has no claim; the claims of a partition are dropped with it."""
    engine = engine_with(NO_LINGER, partitions=[0, 1])
    engine.receive([record(decision("v"), 0, partition=0)], instant(0.0))
    engine.receive([record(metadata("w", plan="pro"), 0, partition=1)], instant(0.0))
    assert engine.dedupe_counts.entries == 1
    engine.forget([1], instant(0.5))
    assert engine.dedupe_counts.entries == 1
    engine.forget([0], instant(0.5))
    assert engine.dedupe_counts.entries == 0
