"""How far back in the ledger a restart reads, just within each boundary and just outside."""

from __future__ import annotations

import pytest

from engine_steps import NO_LINGER, TRACKS_ONLY, damaged, engine_with, instant, metadata
from engine_world import OK, START_MS, acknowledge, decision, in_the_ledger, record
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.books.ledger_window import CHUNK_ENTRIES, LedgerWindow
from flagpost_consumer.core.books.restoration import Restoration, Settled
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.policy import DedupeSettings, MetadataSettings, Policy

NEVER_MS = 2**63
"""As `claims_from_ms`: no claim is needed."""
KEY = b"k" * 16


def window_with(*records: tuple[int, int, int, int]) -> LedgerWindow:
    """A window with these ledger records, each: ledger offset, entries, newest claim in epoch ms, highest offset."""
    window = LedgerWindow()
    for each in records:
        window.note(*each)
    return window


# What is needed


def test_before_anything_is_known_a_restart_reads_from_the_beginning() -> None:
    assert LedgerWindow().oldest_needed(0, 0) is None


def test_a_ledger_that_was_read_and_holds_nothing_needed_is_left_out() -> None:
    window = LedgerWindow()
    window.begin_at(7)
    assert window.oldest_needed(0, 0) == 7


@pytest.mark.parametrize(
    ("position", "begin"),
    [
        (99, 5),
        (100, 5),  # the record at the position is only partly settled: its settlements are needed
        (101, 6),
    ],
)
def test_a_ledger_record_that_settles_an_offset_from_the_position_on_is_needed(
    position: int, begin: int
) -> None:
    assert window_with((5, 1, -1, 100)).oldest_needed(position, NEVER_MS) == begin


@pytest.mark.parametrize(("claims_from_ms", "begin"), [(49_999, 5), (50_000, 5), (50_001, 6)])
def test_a_claim_from_the_oldest_needed_time_on_is_needed(claims_from_ms: int, begin: int) -> None:
    assert window_with((5, 1, 50_000, 0)).oldest_needed(1, claims_from_ms) == begin


def test_either_a_settlement_or_a_claim_is_enough() -> None:
    assert window_with((5, 1, 50_000, 100)).oldest_needed(100, 50_001) == 5
    assert window_with((5, 1, 50_000, 100)).oldest_needed(101, 50_000) == 5
    assert window_with((5, 1, 50_000, 100)).oldest_needed(101, 50_001) == 6


def test_a_record_without_claims_and_settlements_is_never_needed() -> None:
    assert window_with((5, 0, -1, -1)).oldest_needed(0, 0) == 6


def test_offset_and_time_zero_are_needed_as_any_other() -> None:
    assert window_with((5, 1, -1, 0)).oldest_needed(0, NEVER_MS) == 5
    assert window_with((5, 1, 0, -1)).oldest_needed(1, 0) == 5


def test_everything_after_a_needed_record_is_read_too() -> None:
    window = window_with(
        (0, CHUNK_ENTRIES, 10, 10), (1, CHUNK_ENTRIES, 90, 11), (2, CHUNK_ENTRIES, 10, 12), (3, 1, 95, 13)
    )
    assert window.oldest_needed(100, 50) == 1
    assert window.oldest_needed(100, 91) == 3
    assert window.oldest_needed(100, 96) == 4


def test_the_newest_claim_and_the_highest_offset_of_records_kept_together_decide() -> None:
    window = window_with((5, 1, 90, 30), (6, 1, 40, 70), (7, 1, 50, 50))
    assert window.oldest_needed(70, 91) == 5
    assert window.oldest_needed(71, 90) == 5
    assert window.oldest_needed(71, 91) == 8


@pytest.mark.parametrize(
    ("entries", "begin"),
    [
        (CHUNK_ENTRIES - 1, 0),  # still room: the next record is remembered with it
        (CHUNK_ENTRIES, 1),
        (CHUNK_ENTRIES + 1, 1),
    ],
)
def test_records_are_remembered_together_up_to_a_number_of_settlements(entries: int, begin: int) -> None:
    assert window_with((0, entries, -1, 5), (1, 1, -1, 99)).oldest_needed(50, NEVER_MS) == begin


def test_the_window_grows_with_the_settlements_not_with_the_records() -> None:
    window = window_with(*((number, 1, -1, number) for number in range(10 * CHUNK_ENTRIES)))
    assert len(window._chunks) == 10
    assert window.oldest_needed(5 * CHUNK_ENTRIES, NEVER_MS) == 5 * CHUNK_ENTRIES
    assert len(window._chunks) == 5


# What the engine commits


def settled_in_part(engine: Engine, ledger_offset: int) -> list[Settled]:
    """Deliver a decision's track event while its metadata waits in a batch; returns the settlements in the ledger."""
    engine.receive([record(decision("v"))], instant(1.0))
    (attempt,) = engine.poll(instant(1.0)).attempts
    engine.answered(attempt, OK, instant(1.1))
    (settlement,) = engine.poll(instant(1.1)).settlements
    acknowledge(engine, [settlement], ledger_offset)
    return [in_the_ledger(settlement)]


def test_a_settled_delivery_of_the_record_at_the_committed_position_is_not_sent_again_after_a_restart() -> (
    None
):
    """Without dedupe only the ledger's settlement at this offset prevents sending it twice."""
    policy = Policy(metadata=MetadataSettings(linger_seconds=60.0), dedupe=DedupeSettings(ttl_seconds=0.0))
    first = engine_with(policy)
    ledger = {40: settled_in_part(first, 40)}
    position = first.committable()[0]
    assert position == Position(0, 40)
    second = engine_with(policy, partitions=[])
    (partition,) = second.assign([0], 8, instant(100.0))
    restoration = Restoration(position.offset, policy.dedupe)
    for ledger_offset in range(position.ledger_offset or 0, 41):
        restoration.take(ledger_offset, ledger.get(ledger_offset, []))
    restoration.finish(41)
    second.restore(partition, restoration)
    second.receive([record(decision("v"))], instant(100.0))
    assert second.accounts.planned == {Kind.VISITOR_METADATA: 1}


def test_the_ledger_offset_moves_on_once_all_below_it_is_committed() -> None:
    policy = TRACKS_ONLY.model_copy(update={"dedupe": DedupeSettings(ttl_seconds=0.0)})
    engine = engine_with(policy)
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(3)], instant(1.0))
    for attempt in engine.poll(instant(1.0)).attempts:
        engine.answered(attempt, OK, instant(1.1))
    by_offset = {each.delivery.record.offset: each for each in engine.poll(instant(1.1)).settlements}
    acknowledge(engine, [by_offset[1]], 40)
    acknowledge(engine, [by_offset[0]], 41)
    assert engine.committable()[0] == Position(2, 42)
    acknowledge(engine, [by_offset[2]], 42)
    assert engine.committable()[0] == Position(3, 43)


def test_a_claim_keeps_the_ledger_records_that_are_remembered_with_it() -> None:
    """All claims here are remembered together, so the newest one keeps the ledger record of the oldest."""
    ttl_ms = 10_000
    policy = TRACKS_ONLY.model_copy(update={"dedupe": DedupeSettings(ttl_seconds=ttl_ms / 1000)})
    engine = engine_with(policy)
    assert START_MS % ttl_ms == 0
    at_ms = {0: 0, 1: 3 * ttl_ms - 1, 2: 3 * ttl_ms}
    kept = []
    for offset, since_start in at_ms.items():
        event = decision(f"v{offset}", occurred_at=START_MS + since_start)
        engine.receive([record(event, offset)], instant(40.0))
        (attempt,) = engine.poll(instant(40.0)).attempts
        engine.answered(attempt, OK, instant(40.0))
        acknowledge(engine, engine.poll(instant(40.0)).settlements, ledger_offset=100 + offset)
        kept.append(engine._partitions[0].window._chunks[0].newest_claim_ms)
        position = engine.committable()[0]
        assert position.offset == offset + 1
        assert position.ledger_offset == 100
    assert kept == [START_MS + at for at in at_ms.values()]


def test_a_partition_without_any_claim_needs_nothing_of_its_ledger() -> None:
    """Its events are dropped, dead-lettered or metadata. Before the fix, a restart read the ledger from the
    assignment on, because "no claim" (-1) was taken for a claim while event time had not begun.
    """
    engine = engine_with(NO_LINGER)
    engine.receive([damaged(0), record(decision(""), 1), record(metadata("v", plan="pro"), 2)], instant(0.0))
    settled = engine.poll(instant(0.0)).settlements
    (attempt,) = engine.poll(instant(2.0)).attempts
    engine.answered(attempt, OK, instant(2.0))
    settled += engine.poll(instant(2.0)).settlements
    acknowledge(engine, settled, ledger_offset=9)
    assert engine.committable()[0] == Position(3, 10)


def test_the_ledger_record_of_the_first_dead_letter_is_not_needed_once_that_is_committed() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([damaged(0)], instant(0.0))
    acknowledge(engine, engine.poll(instant(0.0)).settlements, ledger_offset=9)
    assert engine.committable()[0] == Position(1, 10)


def test_metadata_alone_advances_event_time_so_that_old_claims_are_not_needed() -> None:
    """Before the fix, a decision followed only by metadata kept its ledger record needed for ever."""
    engine = engine_with(NO_LINGER)
    engine.receive([record(decision("v", variation=None), 0)], instant(2.0))
    (attempt,) = engine.poll(instant(2.0)).attempts
    engine.answered(attempt, OK, instant(2.0))
    acknowledge(engine, engine.poll(instant(2.0)).settlements, ledger_offset=4)
    assert engine.committable()[0] == Position(1, 4)
    ttl_ms = 1800 * 1000
    engine.receive([record(metadata("v", 4 * ttl_ms, plan="pro"), 1)], instant(4 * 1800.0))
    (attempt,) = engine.poll(instant(4 * 1800.0)).attempts
    engine.answered(attempt, OK, instant(4 * 1800.0))
    acknowledge(engine, engine.poll(instant(4 * 1800.0)).settlements, ledger_offset=5)
    assert engine.committable()[0] == Position(2, 6)


def test_a_window_without_claims_is_dropped_before_any_time_is_known() -> None:
    assert window_with((5, 1, -1, 0)).oldest_needed(1, -2 * 10_000) == 6
    assert window_with((5, 1, 0, 0)).oldest_needed(1, -2 * 10_000) == 5


# What a restore keeps, and what it says is needed


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_a_claim_is_restored_for_as_long_as_the_window_calls_it_needed(late_ms: int) -> None:
    ttl_ms, watermark = 10_000, 95_000
    dedupe = Dedupe(ttl_ms / 1000, 100, DedupeCounts())
    dedupe.observe(watermark)
    occurred_at = dedupe.needed_from_ms - late_ms
    window = window_with((5, 1, occurred_at, 0))
    is_needed = window.oldest_needed(1, dedupe.needed_from_ms) == 5
    counts = DedupeCounts()
    dedupe.count_in(counts)
    dedupe.restore(KEY, occurred_at, 3)
    assert is_needed is bool(counts.entries) is (late_ms <= 0)


def restored(position: int, *entries: Settled, ledger_offset: int = 5) -> Restoration:
    restoration = Restoration(position, DedupeSettings(ttl_seconds=10.0))
    restoration.take(ledger_offset, entries)
    return restoration


@pytest.mark.parametrize(("position", "is_settled"), [(6, True), (7, True), (8, False)])
def test_settlements_from_the_position_on_are_restored(position: int, is_settled: bool) -> None:
    restoration = restored(position, (7, Kind.TRACK, Outcome.DROPPED, None, START_MS))
    assert bool(restoration.settled) is is_settled
    assert restoration.settled.kinds(7) == ({Kind.TRACK} if is_settled else set())
    assert restoration.window.oldest_needed(position, NEVER_MS) == (5 if is_settled else 6)


@pytest.mark.parametrize(
    ("outcome", "key", "makes_claim"),
    [
        (Outcome.DELIVERED, KEY, True),
        (Outcome.DELIVERED, None, False),
        (Outcome.DUPLICATE, KEY, False),
        (Outcome.DEAD_LETTERED, KEY, False),
        (Outcome.DROPPED, None, False),
        (None, KEY, False),
    ],
)
def test_only_delivered_events_make_claims(
    outcome: Outcome | None, key: bytes | None, makes_claim: bool
) -> None:
    restoration = restored(9, (7, Kind.TRACK, outcome, key, START_MS))
    assert restoration.window.oldest_needed(9, START_MS) == (5 if makes_claim else 6)
    assert restoration.dedupe.claim(KEY, START_MS + 1, 8) == (7 if makes_claim else None)


def test_a_settlement_without_a_time_makes_no_claim() -> None:
    restoration = restored(9, (7, Kind.TRACK, Outcome.DELIVERED, KEY, None))
    assert restoration.window.oldest_needed(9, 0) == 6
    assert restoration.dedupe.claim(KEY, START_MS, 8) is None


def test_a_record_that_settles_nothing_is_not_needed() -> None:
    """It contains only a gap, or another group's settlements."""
    assert restored(0).window.oldest_needed(0, 0) == 6


def test_partitions_that_are_restored_side_by_side_share_one_limit() -> None:
    counts = DedupeCounts()
    settings = DedupeSettings(ttl_seconds=10.0, max_entries=3)
    for number in range(2):
        restoration = Restoration(0, settings, counts)
        for offset in range(3):
            key = bytes([number, offset]) * 8
            restoration.take(offset, [(offset, Kind.TRACK, Outcome.DELIVERED, key, START_MS)])
    assert (counts.entries, counts.evicted_early) == (3, 3)


def test_the_claims_of_a_finished_restore_count_only_for_the_process_that_takes_them_over() -> None:
    counts, process = DedupeCounts(), DedupeCounts()
    restoration = Restoration(0, DedupeSettings(ttl_seconds=10.0), counts)
    restoration.take(0, [(7, Kind.TRACK, Outcome.DELIVERED, KEY, START_MS)])
    assert counts.entries == 1
    restoration.finish(1)
    assert counts.entries == 0, "the next restore begins with room of its own"
    restoration.dedupe.count_in(process)
    assert process.entries == 1


def test_a_duplicate_moves_the_watermark_as_it_did_when_it_was_judged() -> None:
    counts = DedupeCounts()
    restoration = restored(9, (7, Kind.TRACK, Outcome.DUPLICATE, KEY, START_MS))
    restoration.dedupe.count_in(counts)
    restoration.dedupe.claim(KEY, START_MS - 10_000, 8)
    assert counts.late == 0
    restoration.dedupe.claim(KEY, START_MS - 10_001, 8)
    assert counts.late == 1


def test_the_highest_offset_and_the_newest_claim_of_a_record_count_whatever_their_order() -> None:
    entries: list[Settled] = [
        (20, Kind.TRACK, Outcome.DELIVERED, KEY, START_MS + 5),
        (10, Kind.TRACK, Outcome.DELIVERED, b"l" * 16, START_MS),
    ]
    for given in (entries, entries[::-1]):
        assert restored(0, *given).window.oldest_needed(20, NEVER_MS) == 5
        assert restored(0, *given).window.oldest_needed(21, START_MS + 5) == 5
        assert restored(0, *given).window.oldest_needed(21, START_MS + 6) == 6


def test_a_restore_returns_how_many_settlements_a_record_had_and_where_the_ledger_ended() -> None:
    restoration = Restoration(0, DedupeSettings())
    entry: Settled = (7, Kind.TRACK, Outcome.DROPPED, None, None)
    assert [restoration.take(5, []), restoration.take(6, [entry]), restoration.take(7, [entry] * 3)] == [
        0,
        1,
        3,
    ]
    restoration.finish(12)
    assert restoration.window.oldest_needed(8, NEVER_MS) == 12


def test_a_duplicate_of_a_restored_claim_names_the_offset_of_the_claim() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[])
    (partition,) = engine.assign([0], 8, instant(0.0))
    first = engine_with(TRACKS_ONLY)
    first.receive([record(decision("v"), 3)], instant(1.0))
    (attempt,) = first.poll(instant(1.0)).attempts
    first.answered(attempt, OK, instant(1.0))
    (settlement,) = first.poll(instant(1.0)).settlements
    restoration = Restoration(4, TRACKS_ONLY.dedupe)
    restoration.take(0, [in_the_ledger(settlement)])
    restoration.finish(1)
    engine.restore(partition, restoration)
    engine.receive([record(decision("v"), 4)], instant(1.0))
    (duplicate,) = engine.poll(instant(1.0)).settlements
    assert (duplicate.ending.reason, duplicate.ending.duplicate_of) == (Reason.DEDUPE, 3)


# A ledger that is created anew


def test_a_new_ledger_is_needed_from_its_beginning_as_long_as_the_old_one_was() -> None:
    window = window_with((5_000, CHUNK_ENTRIES, 100, 3), (6_000, 1, 50, 7))
    window.settles_from = 4_000
    window.note(10, 1, 500, -1)
    assert window.settles_from == 0
    assert window.oldest_needed(7, NEVER_MS) == 0, "offset 7 is not committed"
    assert window.oldest_needed(8, 100) == 0, "the claim at 100 may be repeated"
    assert window.oldest_needed(8, 101) == 10
    assert window.oldest_needed(8, NEVER_MS) == 11


def test_a_ledger_that_is_replaced_before_it_was_needed_is_needed_from_its_beginning() -> None:
    window = LedgerWindow()
    window.ledger_replaced()
    assert window.oldest_needed(0, 0) == 0
    window = window_with((5_000, 1, -1, -1))
    window.ledger_replaced()
    assert window.oldest_needed(0, 0) == 0
    window.note(1, 1, -1, 4)
    assert window.oldest_needed(4, NEVER_MS) == 1


@pytest.mark.parametrize(("ledger_offset", "begin"), [(4_001, 5_000), (4_000, 0)])
def test_records_a_little_out_of_order_are_of_the_same_ledger(ledger_offset: int, begin: int) -> None:
    window = window_with((5_000, 1, -1, 7), (ledger_offset, 1, -1, -1))
    assert window.oldest_needed(7, NEVER_MS) == begin


def test_records_out_of_order_do_not_move_the_end_back() -> None:
    window = window_with((5_000, 1, -1, -1), (4_900, 1, -1, -1))
    assert window.oldest_needed(0, NEVER_MS) == 5_001


# Records of another topic


def test_only_the_claims_of_records_of_another_topic_are_taken() -> None:
    restoration = Restoration(0, DedupeSettings())
    settled: list[Settled] = [
        (3, Kind.TRACK, Outcome.DELIVERED, KEY, START_MS),
        (4, Kind.TRACK, Outcome.DROPPED, None, None),
    ]
    assert restoration.take_claims(20, settled) == 2
    assert not restoration.settled
    assert restoration.dedupe.claim(KEY, START_MS, 9) == 3
    assert restoration.window.oldest_needed(0, START_MS) == 20, "for its claim"
    assert restoration.window.oldest_needed(0, START_MS + 1) == 21, "it settles no offset"


def test_only_the_claims_of_ledger_records_from_before_the_log_went_back_are_taken() -> None:
    restoration = Restoration(0, DedupeSettings(), settles_from=20)
    for ledger_offset in (19, 20):
        key = bytes([ledger_offset]) * 16
        settled: Settled = (ledger_offset, Kind.TRACK, Outcome.DELIVERED, key, START_MS)
        assert restoration.take(ledger_offset, [settled]) == 1
    assert restoration.settled.kinds(19) == frozenset()
    assert restoration.settled.kinds(20) == {Kind.TRACK}
    assert restoration.dedupe.claim(bytes([19]) * 16, START_MS, 30) == 19
    assert restoration.window.oldest_needed(21, START_MS) == 19, "for its claim"


def test_of_what_is_disowned_only_the_claims_stay() -> None:
    restoration = Restoration(0, DedupeSettings())
    settled: Settled = (7, Kind.TRACK, Outcome.DELIVERED, KEY, START_MS)
    restoration.take(3, [settled])
    restoration.take_epochs(3, {1: 7})
    restoration.disown(5)
    assert not restoration.settled
    assert restoration.epochs == {}
    assert restoration.dedupe.claim(KEY, START_MS, 9) == 7
    for ledger_offset, kinds in ((4, frozenset()), (5, {Kind.TRACK})):
        restoration.take(ledger_offset, [settled])
        assert restoration.settled.kinds(7) == kinds


def test_the_beginning_of_a_new_ledger_is_not_needed_if_the_old_one_was_empty() -> None:
    window = LedgerWindow()
    assert window.settles_from == 0
    window.ledger_replaced()
    window.note(5, 1, -1, 10)
    assert window.oldest_needed(0, 0) == 5
