"""Duplicates that are recognised by their bytes: which batches are looked at, and how duplicates are settled."""

from __future__ import annotations

import pytest

from engine_steps import NO_LINGER, TRACKS_ONLY, Reader, answer_all, engine_with, instant, undecoded, visitors
from engine_world import OK, START_MS, acknowledge, decision, positions, record
from flagpost_consumer.adapters.ledger.writer import MAX_RECORD_BYTES
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import (
    REPEATED,
    UNCHANGED,
    Duplicates,
    Partition,
    Stage,
    each_settled,
)
from flagpost_consumer.core.books.settling import Settling
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.planning.suppressions import Suppression
from flagpost_consumer.core.policy import DecisionsSettings, DedupeSettings, EndpointLimits, Policy
from flagpost_consumer.core.records import DecodeFailure, Undecoded
from flagpost_consumer.core.tracks.repeats import AT_REST, MAX_BYTES, MAX_REST_BYTES, WORTH_IT
from flagpost_schemas import (
    DecisionEvent,
    LedgerEntry,
    Settlements,
    Source,
    decode_settlements,
    encode_settlements,
    encode_single_object,
    glance,
)


def delivered(engine: Engine, reader: Reader) -> None:
    """Deliver a decision, so that the engine remembers the common part of decisions like it."""
    engine.receive([undecoded(decision("v"), 0, reader)], instant(1.0))
    assert answer_all(engine, 1.0, OK) == 1
    acknowledge(engine, engine.poll(instant(1.0)).settlements)


def answer_unacknowledged(engine: Engine) -> int:
    """Pendo accepts the requests that start, Kafka accepts no settlement; returns the number of requests."""
    attempts = engine.poll(instant(2.0)).attempts
    for attempt in attempts:
        engine.answered(attempt, OK, instant(2.0))
    return len(attempts)


def repeat(engine: Engine, reader: Reader, *offsets: int) -> list[Duplicates]:
    engine.receive([undecoded(decision("v"), offset, reader) for offset in offsets], instant(2.0))
    return list(engine.poll(instant(2.0)).duplicates)


def test_duplicates_are_not_decoded_and_are_settled_together() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    (duplicates,) = repeat(engine, reader, 1, 2, 4)
    assert reader.decoded == [0]
    told = [(each.record.offset, *each[1:]) for each in each_settled(duplicates)]
    assert told == [(offset, Kind.TRACK, REPEATED, 0) for offset in (1, 2, 4)]
    assert engine.accounts.pending[Kind.TRACK] == 3
    assert positions(engine) == {0: 1}
    engine.acknowledged([duplicates], 5)
    assert engine.accounts.settled[Kind.TRACK, Outcome.DUPLICATE, Reason.DEDUPE] == 3
    assert engine.pending_records == engine.pending_bytes == 0
    assert positions(engine) == {0: 5}
    assert duplicates.stage is Stage.ACKNOWLEDGED


def test_a_record_that_is_read_again_is_neither_decoded_nor_taken_in_again() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    assert len(repeat(engine, reader, 1)) == 1
    assert repeat(engine, reader, 0, 1) == []
    assert (reader.decoded, engine.accounts.records) == ([0], 2)


def test_a_duplicate_waits_behind_records_that_wait_for_a_clock_that_can_be_trusted() -> None:
    """Taken in before its turn, it would move the position past the records that wait."""
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    stamped = START_MS + 600_000
    ahead = [decision(f"ahead{n}", occurred_at=stamped) for n in range(3)]
    waiting = [undecoded(event, offset, reader) for offset, event in enumerate(ahead, 1)]
    engine.receive([*waiting, undecoded(decision("v"), 4, reader)], instant(2.0))
    actions = engine.poll(instant(2.0))
    assert (actions.duplicates, positions(engine)) == ([], {0: 1})
    assert actions.partitions_paused == {0}
    assert answer_all(engine, 601.0, OK) == 3
    assert engine.accounts.records == 5


def test_duplicates_that_kafka_does_not_have_yet_count_as_the_oldest_pending_event() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    later = [undecoded(decision("v", occurred_at=START_MS + at), 1 + at, reader) for at in (300, 500)]
    engine.receive(later, instant(2.0))
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    assert engine.oldest_pending_ms() == START_MS + 300
    engine.acknowledged([duplicates], 5)
    assert engine.oldest_pending_ms() is None


def test_a_record_that_waits_between_duplicates_holds_the_position() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    between = undecoded(decision("other"), 2, reader)
    repeats = [undecoded(decision("v"), offset, reader) for offset in (1, 3)]
    engine.receive([repeats[0], between, repeats[1]], instant(2.0))
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    assert (len(duplicates.records), engine.accounts.records) == (2, 4)
    engine.acknowledged([duplicates], 5)
    assert positions(engine) == {0: 2}


def test_duplicates_of_a_partition_that_is_lost_are_returned_and_not_written() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    (duplicates,) = repeat(engine, reader, 1, 2)
    engine.forget([0], instant(2.0))
    assert engine.accounts.returned[Kind.TRACK] == 2
    assert engine.pending_records == engine.pending_bytes == 0
    engine.acknowledged([duplicates], 5)
    assert engine.accounts.pending[Kind.TRACK] == 0
    assert not engine.accounts.settled[Kind.TRACK, Outcome.DUPLICATE, Reason.DEDUPE]


def test_most_batches_are_not_looked_at_where_duplicates_are_rare() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    delivered(engine, reader)
    new = [undecoded(decision(f"new{offset}"), offset, reader) for offset in range(1, 20)]
    engine.receive(new, instant(2.0))
    assert [engine.looks_for_duplicates() for _ in range(AT_REST + 1)] == [False] * AT_REST + [True]
    repeat(engine, reader, *range(20, 30))
    assert engine.looks_for_duplicates()


def look(engine: Engine, reader: Reader, first: int, *, new: int, repeated: int) -> int:
    """Receive a batch with this many new and duplicate decisions; returns how many batches are then not looked at."""
    visitors = [*(f"new{first + n}" for n in range(new)), *["v"] * repeated]
    assert taken(engine, reader, *map(decision, visitors), first=first) == repeated
    return rest_of(engine)


def rest_of(engine: Engine) -> int:
    """How many batches are not looked at before one is."""
    return next(n for n in range(100) if engine.looks_for_duplicates())


def test_the_first_batch_is_looked_at_and_each_counts_by_itself() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    assert engine.looks_for_duplicates()
    assert look(engine, reader, 0, new=1, repeated=0) == AT_REST
    assert look(engine, reader, 1, new=1, repeated=0) == AT_REST


def test_batches_are_looked_at_where_one_in_eight_is_a_duplicate_and_not_where_fewer_are() -> None:
    engine, reader = after_delivery()
    assert rest_of(engine) == AT_REST, "what was delivered was new"
    first = 1
    for new, rests in ((WORTH_IT - 1, 0), (WORTH_IT, AT_REST), (WORTH_IT - 1, 0)):
        for times in (1, 2):
            assert look(engine, reader, first, new=times * new, repeated=times) == rests
            first += times * (new + 1)


def test_no_ledger_record_of_duplicates_that_came_together_is_too_long() -> None:
    """Duplicates that came together are not split later: if Kafka refused their record, the partition would stop."""
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    event = decision("v" * 60, event_id="e" * 60, account_id="a" * 60, source=Source(service="s" * 60))
    engine.receive([undecoded(event, 0, reader)], instant(1.0))
    engine.receive([undecoded(event, offset, reader) for offset in range(1, 2000)], instant(1.0))
    lengths = [sum(map(len, each.entries)) for each in engine.poll(instant(1.0)).duplicates]
    assert len(lengths) > 2
    assert max(lengths) < 2 * MAX_BYTES < MAX_RECORD_BYTES / 2


def test_the_ledger_record_of_duplicates_is_needed_for_their_offsets_and_holds_no_claim() -> None:
    settling = Settling(max_unwritten=8)
    partition = Partition(0, 0.0, Dedupe(10.0, 100, DedupeCounts()))
    one = undecoded(decision("v"), 4, Reader())
    duplicates = Duplicates(partition, [one], entries=[b"entry"])
    partition.offsets.take(4, duplicates)
    settling.take_duplicates(duplicates)
    settling.acknowledged_duplicates(duplicates, 7)
    assert partition.window.oldest_needed(4, 0) == 7
    assert partition.window.oldest_needed(5, 0) == 8


def test_once_kafka_accepts_duplicates_of_another_partition_only_the_held_one_waits() -> None:
    policy = TRACKS_ONLY.model_copy(update={"limits": EndpointLimits(max_connections=1)})
    engine, reader = engine_with(policy, partitions=[0, 1]), Reader()
    delivered(engine, reader)
    for offset in range(3):
        engine.receive([record(decision(f"w{offset}"), offset, partition=1)], instant(2.0))
        assert answer_unacknowledged(engine) == 1
    (duplicates,) = repeat(engine, reader, 1)
    engine.receive([record(decision("x"), 2)], instant(4.0))
    assert engine.poll(instant(4.0)).attempts == [], "perhaps Kafka takes nothing at all"
    engine.acknowledged([duplicates], 5)
    assert visitors(engine.poll(instant(4.0)).attempts) == ["x"]


# Which duplicates are recognised by their bytes


def taken(engine: Engine, reader: Reader, *events: DecisionEvent, at: float = 2.0, first: int = 1) -> int:
    """Receive these events in one batch; returns how many are taken in without being decoded."""
    before = len(reader.decoded)
    engine.receive(
        [undecoded(event, offset, reader) for offset, event in enumerate(events, first)], instant(at)
    )
    return len(events) - len(reader.decoded) + before


def after_delivery(policy: Policy = TRACKS_ONLY, event: DecisionEvent | None = None) -> tuple[Engine, Reader]:
    """An engine that has made all deliveries of a decision."""
    engine, reader = engine_with(policy), Reader()
    assert taken(engine, reader, decision("v") if event is None else event, at=1.0, first=0) == 0
    assert answer_all(engine, 1.0, OK) > 0
    acknowledge(engine, engine.poll(instant(1.0)).settlements)
    return engine, reader


def test_an_undecoded_record_has_the_headers_and_times_of_its_decoded_record() -> None:
    one = undecoded(decision("v"), 7, Reader())
    whole = one.decode()
    assert (one.headers, one.timestamp_ms, one.fresh) == (whole.headers, whole.timestamp_ms, whole.fresh)
    assert one.size_bytes == len(b"v") + len(one.value)


def test_another_visitor_s_decision_is_no_duplicate_although_its_bytes_are_known() -> None:
    engine, reader = after_delivery()
    assert taken(engine, reader, decision("w")) == 0
    assert taken(engine, reader, decision("v", "other"), first=2) == 0
    assert taken(engine, reader, decision("v", variation="b"), first=3) == 0
    assert taken(engine, reader, decision("v"), first=4) == 1


@pytest.mark.parametrize(
    ("policy", "event"),
    [
        (TRACKS_ONLY, decision("v", attributes={"plan": "pro"})),
        (TRACKS_ONLY, decision("v", rule_key="r" * MAX_REST_BYTES)),
        (TRACKS_ONLY, decision("é")),
        (TRACKS_ONLY.model_copy(update={"ledger_key": b"k" * 32}), decision("v")),
        (
            Policy(decisions=DecisionsSettings(visitor_metadata=False, attribute_properties=["plan"])),
            decision("v"),
        ),
    ],
    ids=["attributes", "long", "not ASCII", "a ledger key", "attributes as properties"],
)
def test_a_record_that_its_bytes_do_not_identify_is_decoded_and_still_a_duplicate(
    policy: Policy, event: DecisionEvent
) -> None:
    engine, reader = after_delivery(policy, event)
    assert taken(engine, reader, event) == 0
    (settlement,) = engine.poll(instant(2.0)).settlements
    assert settlement.ending.reason is Reason.DEDUPE


def test_only_decisions_whose_bytes_after_the_visitor_id_are_few_are_remembered() -> None:
    seen = glance(encode_single_object(decision("v", rule_key="r" * 400)))
    assert seen is not None
    for too_many in (0, 1):
        event = decision("v", rule_key="r" * (400 + MAX_REST_BYTES - len(seen.rest) + too_many))
        engine, reader = after_delivery(event=event)
        assert taken(engine, reader, event) == 1 - too_many


def test_a_damaged_record_that_begins_like_a_decision_is_decoded_and_settled_as_undecodable() -> None:
    engine, reader = engine_with(TRACKS_ONLY), Reader()
    value = encode_single_object(decision("v"))
    for offset in range(2):
        damaged = record(DecodeFailure(Reason.UNDECODABLE, "cut short"), offset)
        engine.receive([Undecoded(0, offset, b"v", value, damaged, reader)], instant(1.0))
        (settlement,) = engine.poll(instant(1.0)).settlements
        assert settlement.ending.reason is Reason.UNDECODABLE
    assert reader.decoded == [0, 1]


def test_a_decision_whose_claim_has_run_out_is_sent_again() -> None:
    policy = TRACKS_ONLY.model_copy(update={"dedupe": DedupeSettings(ttl_seconds=10.0)})
    engine, reader = after_delivery(policy)
    later = [decision("v", occurred_at=START_MS + ms) for ms in (9_999, 10_000)]
    assert [taken(engine, reader, event, at=11.0, first=n) for n, event in enumerate(later, 1)] == [1, 0]
    assert answer_all(engine, 11.0, OK) == 1


def test_a_suppressed_visitor_s_decision_is_dropped_and_no_duplicate() -> None:
    engine, reader = after_delivery()
    engine.suppress([Suppression("v", is_suppressed=True)])
    assert taken(engine, reader, decision("v")) == 0
    (settlement,) = engine.poll(instant(2.0)).settlements
    assert settlement.ending.reason is Reason.SUPPRESSED


def test_after_a_change_of_pendo_s_fields_decisions_are_planned_again() -> None:
    engine, reader = after_delivery()
    engine.know_fields({})
    assert taken(engine, reader, decision("v")) == 0
    assert taken(engine, reader, decision("v"), first=2) == 1


def test_the_remembered_parts_of_decisions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagpost_consumer.core.tracks.repeats.MAX_LIKENESSES", 2)
    engine, reader = after_delivery()
    assert taken(engine, reader, decision("v", "second")) == 0
    assert taken(engine, reader, decision("v"), first=2) == 1
    assert taken(engine, reader, decision("v", "third"), first=3) == 0
    assert taken(engine, reader, decision("v", "third"), first=4) == 1
    assert taken(engine, reader, decision("v"), first=5) == 0


# With metadata


def test_a_duplicate_whose_value_pendo_has_is_settled_for_both_kinds() -> None:
    engine, reader = after_delivery(NO_LINGER)
    assert taken(engine, reader, decision("v")) == 1
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    assert [(each.record.offset, *each[1:3]) for each in each_settled(duplicates)] == [
        (1, Kind.TRACK, REPEATED),
        (1, Kind.VISITOR_METADATA, UNCHANGED),
    ]
    assert [each.record.offset for each in each_settled(duplicates)] == [1, 1]
    engine.acknowledged([duplicates], 5)
    settled = engine.accounts.settled
    assert settled[Kind.TRACK, Outcome.DUPLICATE, Reason.DEDUPE] == 1
    assert settled[Kind.VISITOR_METADATA, Outcome.DUPLICATE, Reason.UNCHANGED] == 1
    assert engine.is_quiet()
    assert positions(engine) == {0: 2}


def test_duplicates_are_counted_beside_deliveries_in_flight() -> None:
    engine, reader = after_delivery(NO_LINGER)
    assert taken(engine, reader, decision("w")) == 0
    assert len(engine.poll(instant(2.0)).attempts) == 2
    held = engine.pending_bytes
    assert taken(engine, reader, decision("v"), decision("v"), first=2) == 2
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    assert (engine.pending_records, engine.pending_bytes) == (3, held + duplicates.size_bytes)
    engine.acknowledged([duplicates], 5)
    assert (engine.pending_records, engine.pending_bytes) == (1, held)
    assert not engine.is_quiet()
    assert engine.accounts.settled[Kind.VISITOR_METADATA, Outcome.DUPLICATE, Reason.UNCHANGED] == 2
    assert engine.accounts.pending[Kind.VISITOR_METADATA] == 1
    assert engine.accounts.difference(Kind.VISITOR_METADATA) == 0


def test_both_deliveries_of_duplicates_are_returned_with_their_partition() -> None:
    engine, reader = after_delivery(NO_LINGER)
    assert taken(engine, reader, decision("v"), decision("v")) == 2
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    engine.forget([0], instant(2.0))
    assert duplicates.stage is Stage.RETURNED
    assert engine.accounts.returned == {Kind.TRACK: 2, Kind.VISITOR_METADATA: 2}
    assert engine.accounts.pending.total() == 0


def test_the_ledger_entry_of_a_duplicate_has_what_it_would_have_sent_and_what_it_duplicates() -> None:
    """docs/contract.md#ledger-records: the entry for a visitor's values names no record that it duplicates."""
    engine, reader = after_delivery(NO_LINGER)
    assert taken(engine, reader, decision("v", event_id="again"), first=7) == 1
    (duplicates,) = engine.poll(instant(2.0)).duplicates
    empty = Settlements(group="g", member="m", settled_at=1, entries=[], gaps=[])
    track, values = decode_settlements(encode_settlements(empty, duplicates.entries)).entries
    assert (track.offset, track.kind, track.outcome, track.reason) == (7, "track", "duplicate", "dedupe")
    assert (track.event_id, track.visitor_id, track.occurred_at) == ("again", "v", START_MS)
    assert (track.event, track.flag_key, track.variation_key) == ("Experiment Viewed", "checkout", "a")
    assert (track.duplicate_of, len(track.dedupe_key or b""), track.attempts) == (0, 16, 0)
    assert values == LedgerEntry(
        7,
        "visitor_metadata",
        "duplicate",
        "unchanged",
        event_id="again",
        visitor_id="v",
        flag_key="checkout",
        variation_key="a",
        occurred_at=START_MS,
    )


def test_a_duplicate_whose_value_has_changed_meanwhile_is_sent_again() -> None:
    engine, reader = after_delivery(NO_LINGER)
    assert taken(engine, reader, decision("v", variation="b")) == 0
    assert taken(engine, reader, decision("v", occurred_at=START_MS + 1), first=2) == 0
    assert engine.poll(instant(2.0)).duplicates == []


def test_a_decision_whose_field_pendo_does_not_have_is_decoded_each_time() -> None:
    engine, reader = engine_with(NO_LINGER), Reader()
    engine.know_fields({("visitor", "custom"): {}})
    assert taken(engine, reader, decision("v"), at=1.0, first=0) == 0
    assert answer_all(engine, 1.0, OK) == 1
    assert taken(engine, reader, decision("v")) == 0


def test_duplicates_are_settled_together_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reader = after_delivery()
    size = undecoded(decision("v"), 0, reader).size_bytes
    monkeypatch.setattr("flagpost_consumer.core.tracks.repeats.MAX_BYTES", 2 * size)
    assert taken(engine, reader, *[decision("v")] * 5) == 5
    assert [len(each.records) for each in engine.poll(instant(2.0)).duplicates] == [2, 2, 1]


def test_a_decision_that_is_dropped_each_time_is_decoded_each_time() -> None:
    policy = Policy(decisions=DecisionsSettings(visitor_metadata=False, flags_deny=["checkout"]))
    engine, reader = engine_with(policy), Reader()
    for offset in range(2):
        assert taken(engine, reader, decision("v"), first=offset) == 0
        (settlement,) = engine.poll(instant(2.0)).settlements
        (told,) = each_settled(settlement)
        assert (told.record.offset, told.kind, told.attempts) == (offset, Kind.TRACK, 0)
        assert told.ending.reason is Reason.FLAG_FILTERED
