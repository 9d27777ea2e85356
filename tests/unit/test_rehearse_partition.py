"""The rehearsal of one partition: what the ledger has, what the engine would decide, and what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine_world import START_MS, decision, record
from flagpost_consumer.commands.rehearse.differences import Differences, LeftOut
from flagpost_consumer.commands.rehearse.partition import PartitionRehearsal, Stretch
from flagpost_consumer.commands.rehearse.recorded import PartitionLedger
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.planning.plan import Planner, decision_key
from flagpost_consumer.core.policy import DecisionsSettings, DedupeSettings, DeliverySettings, Policy
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_schemas import DecisionEvent, LedgerEntry, Settlements
from ledger_writing import entry
from rehearsed_world import told

ALL = Span(0, 100)
TRACKS_ONLY = Policy(decisions=DecisionsSettings(visitor_metadata=False))
Batch = tuple[str, float, Sequence[LedgerEntry]]
"""A member, the second at which it wrote, and its entries."""


def shown(
    offset: int, second: float = 0.0, variation: str = "a", visitor: str = "v", **fields: object
) -> Record:
    """Return a decision that was published `second` seconds after the start."""
    at = START_MS + int(second * 1000)
    known = {"occurred_at": at, "event_id": f"e{offset}", **fields}
    event = decision(visitor, variation=variation, **known)  # type: ignore[arg-type]
    return record(event, offset)._replace(timestamp_ms=at)


def ended(made: Record, reason: Reason, kind: Kind = Kind.TRACK, **fields: object) -> LedgerEntry:
    """Return the ledger entry of one of its deliveries."""
    event = made.event
    assert isinstance(event, DecisionEvent)
    is_keyed = kind is Kind.TRACK and reason.outcome is not Outcome.DROPPED
    key = decision_key(event.visitor_id, event.flag_key, event.variation_key) if is_keyed else None
    known = {"reason": reason.value, "dedupe_key": key, "occurred_at": event.occurred_at, **fields}
    return entry(made.offset, kind.value, reason.outcome.value, **known)


def metadata(made: Record, reason: Reason, **fields: object) -> LedgerEntry:
    return ended(made, reason, Kind.VISITOR_METADATA, **fields)


def rehearsed(
    records: Iterable[Record],
    batches: Iterable[Batch],
    policy: Policy = TRACKS_ONLY,
    *,
    span: Span = ALL,
    committed: int = 100,
    counted_from: int = 0,
    gaps: Sequence[tuple[int, int]] = (),
) -> Differences:
    ledger, found = PartitionLedger(span, policy.dedupe), Differences()
    for offset, (member, second, entries) in enumerate(batches):
        settled_at = START_MS + int(second * 1000)
        ledger.add(
            offset,
            Settlements(group="g", member=member, settled_at=settled_at, entries=list(entries), gaps=[]),
        )
    stretch = Stretch(0, counted_from, is_whole=span.first == 0, committed=committed, gaps=gaps)
    rehearsal = PartitionRehearsal(policy, Planner(policy), ledger, stretch, found)
    for made in records:
        rehearsal.take(made)
    rehearsal.finish()
    return found


def test_a_delivery_that_would_end_the_same_is_not_a_difference() -> None:
    first, second = shown(0), shown(1, 5.0)
    batch = [ended(first, Reason.OK, attempts=1), ended(second, Reason.DEDUPE, duplicate_of=0)]
    found = rehearsed([first, second], [("m", 6.0, batch)])
    assert (told(found), found.same, found.left_out.total()) == ({}, 2, 0)


def test_pendos_answers_are_taken_from_the_ledger() -> None:
    records = [shown(number, visitor=f"v{number}") for number in range(4)]
    reasons = (Reason.REJECTED, Reason.ATTEMPTS_EXHAUSTED, Reason.VISITOR_BACKLOG, Reason.OK)
    batch = [ended(made, reason) for made, reason in zip(records, reasons, strict=True)]
    found = rehearsed(records, [("m", 1.0, batch)])
    assert (told(found), found.same) == ({}, 4)


def test_deliveries_that_were_not_sent_then_count_as_accepted() -> None:
    records = [shown(0), shown(1, 1.0), shown(2, visitor="w")]
    batch = [ended(made, Reason.FLAG_FILTERED) for made in records]
    found = rehearsed(records, [("m", 2.0, batch)])
    assert told(found) == {"track: flag_filtered -> ok": 2, "track: flag_filtered -> dedupe": 1}


def test_each_difference_names_a_few_examples() -> None:
    records = [shown(number, visitor=f"v{number}") for number in range(9)]
    found = rehearsed(records, [("m", 1.0, [ended(made, Reason.NO_CONSENT) for made in records])])
    (row,) = found.rows.values()
    assert row.count == 9
    assert [(each.partition, each.offset, each.event_id) for each in row.examples] == [
        (0, number, f"e{number}") for number in range(5)
    ]


def test_a_duplicate_of_a_delivery_before_the_stretch_is_known_from_the_ledger() -> None:
    before, again = shown(4), shown(10, 5.0)
    batches = [
        ("m", 1.0, [ended(before, Reason.OK, attempts=1)]),
        ("m", 6.0, [ended(again, Reason.DEDUPE, duplicate_of=4)]),
    ]
    found = rehearsed([again], batches, span=Span(10, 20))
    assert (told(found), found.same) == ({}, 1)


def test_a_duplicate_of_a_delivery_that_the_ledger_has_lost_is_left_out_and_reported() -> None:
    again = shown(10, 5.0)
    found = rehearsed([again], [("m", 6.0, [ended(again, Reason.DEDUPE, duplicate_of=4)])], span=Span(10, 20))
    assert (told(found), dict(found.left_out)) == ({}, {LeftOut.NOT_COVERED: 1})


def test_deliveries_before_the_window_are_known_and_not_counted() -> None:
    first, again = shown(0), shown(1, 5.0)
    batch = [ended(first, Reason.NO_CONSENT), ended(again, Reason.NO_CONSENT)]
    found = rehearsed([first, again], [("m", 6.0, batch)], counted_from=1)
    assert told(found) == {"track: no_consent -> dedupe": 1}


def test_a_claim_is_free_once_its_delivery_ended_undelivered() -> None:
    rejected, early, late = shown(0), shown(1, 1.0), shown(2, 9.0)
    batches = [
        ("m", 1.0, [ended(early, Reason.DEDUPE, duplicate_of=0)]),
        ("m", 5.0, [ended(rejected, Reason.REJECTED, attempts=1)]),
        ("m", 9.0, [ended(late, Reason.OK, attempts=1)]),
    ]
    found = rehearsed([rejected, early, late], batches)
    assert (told(found), found.same) == ({}, 3)


def test_pending_and_unexplained_deliveries_are_counted_and_not_judged() -> None:
    records = [shown(0), shown(1, 1.0), shown(2, 2.0)]
    batch = [ended(records[1], Reason.DEDUPE, duplicate_of=0)]
    found = rehearsed(records, [("m", 1.0, batch)], committed=2)
    assert (told(found), found.same) == ({}, 1)
    assert dict(found.left_out) == {LeftOut.UNEXPLAINED: 1, LeftOut.PENDING: 1}


def test_records_that_the_group_could_not_read_are_left_out() -> None:
    found = rehearsed([shown(3)], [], gaps=[(2, 5)])
    assert (told(found), dict(found.left_out)) == ({}, {LeftOut.LOST: 1})


def test_a_record_that_can_be_decoded_now_is_shown_with_what_it_becomes() -> None:
    unread = entry(0, "unknown", "dead_lettered", reason="unknown_schema")
    found = rehearsed([shown(0)], [("m", 1.0, [unread])])
    assert told(found) == {"unknown: unknown_schema -> -": 1, "track: - -> ok": 1}


def test_a_record_that_cannot_be_decoded_any_more_is_shown() -> None:
    made = shown(0)
    failed = made._replace(event=DecodeFailure(Reason.UNDECODABLE, "cut short"))
    found = rehearsed([failed], [("m", 1.0, [ended(made, Reason.OK)])])
    assert told(found) == {"track: ok -> -": 1, "unknown: - -> undecodable": 1}


def test_only_the_dead_lettered_delivery_of_a_replayed_record_is_planned() -> None:
    made = shown(0)._replace(headers=(("flagpost-replay-of", b"0/7"), ("flagpost-replay-kind", b"track")))
    found = rehearsed([made], [("m", 1.0, [ended(made, Reason.OK)])], Policy())
    assert (told(found), found.same) == ({}, 1)


def test_the_age_of_an_event_is_that_at_its_settlement_in_the_ledger() -> None:
    hour = Policy(
        decisions=DecisionsSettings(visitor_metadata=False), delivery=DeliverySettings(max_age_seconds=3600)
    )
    in_time, asked_in_time, late = (shown(number, visitor=f"v{number}") for number in range(3))
    batches = [
        ("m", 3500.0, [ended(in_time, Reason.OK, attempts=1)]),
        ("m", 3605.0, [ended(asked_in_time, Reason.OK, attempts=1)]),  # the request may have started before
        ("m", 3700.0, [ended(late, Reason.OK, attempts=1)]),
    ]
    assert told(rehearsed([in_time, asked_in_time, late], batches, hour)) == {"track: ok -> expired": 1}


def test_a_delivery_that_expired_while_it_waited_had_a_claim_until_then() -> None:
    minute = Policy(
        decisions=DecisionsSettings(visitor_metadata=False), delivery=DeliverySettings(max_age_seconds=60)
    )
    waited, again, later = shown(0), shown(1, 30.0), shown(2, 90.0)
    batches = [
        ("m", 31.0, [ended(again, Reason.DEDUPE, duplicate_of=0)]),
        ("m", 61.0, [ended(waited, Reason.EXPIRED)]),
        ("m", 91.0, [ended(later, Reason.OK, attempts=1)]),
    ]
    found = rehearsed([waited, again, later], batches, minute)
    assert (told(found), found.same) == ({}, 3)
    assert told(rehearsed([waited, again, later], batches)) == {
        "track: expired -> ok": 1,
        "track: ok -> dedupe": 1,
    }


def test_metadata_that_one_member_sent_is_unknown_to_the_next() -> None:
    first, again = shown(0), shown(1, 9.0)
    batches = [
        ("m1", 1.0, [ended(first, Reason.OK), metadata(first, Reason.OK, attempts=1)]),
        ("m2", 10.0, [ended(again, Reason.DEDUPE, duplicate_of=0), metadata(again, Reason.OK, attempts=1)]),
    ]
    assert told(rehearsed([first, again], batches, Policy())) == {}
    alone = [("m1", second, entries) for _, second, entries in batches]
    assert told(rehearsed([first, again], alone, Policy())) == {"visitor_metadata: ok -> unchanged": 1}


def test_metadata_depends_on_the_ttl() -> None:
    first, again = shown(0), shown(1, 100.0)
    batches = [
        ("m", 1.0, [ended(first, Reason.OK), metadata(first, Reason.OK, attempts=1)]),
        ("m", 101.0, [ended(again, Reason.DEDUPE, duplicate_of=0), metadata(again, Reason.UNCHANGED)]),
    ]
    assert told(rehearsed([first, again], batches, Policy())) == {}
    minute = Policy(dedupe=DedupeSettings(ttl_seconds=60.0))
    assert told(rehearsed([first, again], batches, minute)) == {
        "track: dedupe -> ok": 1,
        "visitor_metadata: unchanged -> ok": 1,
    }


def test_fields_that_pendo_lacked_are_taken_from_the_ledger() -> None:
    made = shown(0)
    batch = [ended(made, Reason.OK, attempts=1), metadata(made, Reason.FIELD_MISSING)]
    found = rehearsed([made], [("m", 1.0, batch)], Policy())
    assert (told(found), found.same) == ({}, 2)


def test_metadata_that_was_not_planned_then_is_shown() -> None:
    first, again = shown(0), shown(1, 5.0)
    batch = [ended(first, Reason.OK, attempts=1), ended(again, Reason.DEDUPE, duplicate_of=0)]
    found = rehearsed([first, again], [("m", 6.0, batch)], Policy())
    assert told(found) == {"visitor_metadata: - -> ok": 1, "visitor_metadata: - -> unchanged": 1}
    pending = rehearsed([first, again], [("m", 6.0, batch)], Policy(), committed=0)
    assert (told(pending), dict(pending.left_out)) == ({}, {LeftOut.PENDING: 2})


def test_older_values_that_came_in_time_are_superseded_and_the_newest_is_sent() -> None:
    older, newer, last = (
        shown(0, 0.0, "a"),
        shown(1, 1.0, "b"),
        shown(2, 1.5, "a", occurred_at=START_MS + 500),
    )
    batch = [
        *(ended(made, Reason.OK, attempts=1) for made in (older, newer)),
        ended(last, Reason.DEDUPE, duplicate_of=0),
        metadata(older, Reason.SUPERSEDED),
        metadata(newer, Reason.OK, attempts=1),
        metadata(last, Reason.SUPERSEDED),
    ]
    found = rehearsed([older, newer, last], [("m", 3.0, batch)], Policy())
    assert (told(found), found.same) == ({}, 6)
