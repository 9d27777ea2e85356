"""How a record ended, what it waits for, and how its values compare with Pendo's: decided without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from engine_world import START_MS, decision
from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.explain.finding import Found, FoundRecord, Letter, Settled
from flagpost_consumer.commands.explain.pendo import AtPendo, FieldStory, Verdict, compare
from flagpost_consumer.commands.explain.stories import MEANINGS, State, Story, tell
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.commands.explain.waiting import Cause, Surroundings, Wait, waits
from flagpost_consumer.commands.sources.consumer_state import (
    ConsumerState,
    EndpointSaid,
    PartitionState,
    admin_urls,
)
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.planning.ledger_ids import LedgerIds
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.policy import ConsentSettings, DeliverySettings, Policy
from flagpost_consumer.settings import AdminSettings
from flagpost_schemas import AccountMetadata, Event, LedgerEntry, TrackEvent, VisitorMetadata
from ledger_writing import entry

SUBJECT = Subject.of("v", LedgerIds(), is_account=False)
BOTH = (Kind.TRACK, Kind.VISITOR_METADATA)


def at(offset: int, event: Event | None, produced_at: int = START_MS) -> FoundRecord:
    return FoundRecord(0, offset, produced_at, (), event, "" if event else "no event")


def found(
    records: Iterable[FoundRecord],
    entries: Iterable[LedgerEntry] = (),
    *,
    committed: int = 0,
    settled_at: int = START_MS + 1_000,
    **fields: Any,
) -> Found:
    """The records and settlements of one visitor in partition 0, as they were found in Kafka."""
    settled: dict[tuple[int, int], list[Settled]] = {}
    for each in entries:
        settled.setdefault((0, each.offset), []).append(Settled(each, settled_at))
    return Found((0,), (0,), None, records=list(records), settled=settled, committed={0: committed}, **fields)


def told(what: Found, policy: Policy | None = None) -> list[Story]:
    return tell(what, Planner(policy or Policy(can_send_metadata=True)), START_MS + 2_000)


def states(story: Story) -> list[tuple[Kind, State]]:
    return [(delivery.kind, delivery.state) for delivery in story.deliveries]


# Stories


def test_every_reason_has_its_meaning() -> None:
    assert set(MEANINGS) == {reason.value for reason in Reason}


def test_a_delivery_that_was_settled_twice_shows_its_best_ending_and_that_it_was_sent_again() -> None:
    ends = [entry(0, outcome="dropped", reason="no_consent"), entry(0), entry(0, attempts=3)]
    (story,) = told(found([at(0, decision("v"))], ends, committed=1))
    track = story.deliveries[0]
    assert (track.state, track.sent_again, track.entry) == (State.DELIVERED, 1, ends[1])


@pytest.mark.parametrize(
    ("committed", "fields", "state"),
    [
        (0, {}, State.PENDING),
        (1, {}, State.UNEXPLAINED),
        (1, {"gaps": {0: [(0, 1)]}}, State.LOST),
        (1, {"gaps": {0: [(1, 2)]}}, State.UNEXPLAINED),
        (1, {"ledger_from": {0: START_MS + 1}}, State.FORGOTTEN),
        (1, {"ledger_from": {0: START_MS}}, State.UNEXPLAINED),
    ],
)
def test_a_delivery_without_a_settlement_says_why(
    committed: int, fields: Mapping[str, Any], state: State
) -> None:
    (story,) = told(found([at(0, decision("v"))], committed=committed, **fields))
    assert states(story) == [(kind, state) for kind in BOTH]


def test_a_dropped_delivery_is_explained_by_these_settings_if_they_drop_it_for_the_same_reason() -> None:
    event = decision("v", consent={"analytics": False})
    ends = [entry(0, outcome="dropped", reason="no_consent")]
    (story,) = told(found([at(0, event)], ends))
    assert story.deliveries[0].detail == "consent to analytics is denied"
    other = Policy(can_send_metadata=True, consent=ConsentSettings(category="ads"))
    (story,) = told(found([at(0, event)], ends), other)
    assert story.deliveries[0].detail == MEANINGS["no_consent"]


@pytest.mark.parametrize(
    ("flag_key", "same"), [("checkout", "the same flag and variation"), (None, "the same event id")]
)
def test_a_duplicate_says_what_the_records_of_its_type_have_in_common(
    flag_key: str | None, same: str
) -> None:
    event = TrackEvent(event_id="e", occurred_at=START_MS, visitor_id="v", event="x")
    record = at(0, event if flag_key is None else decision("v", flag_key))
    ends = [entry(0, outcome="duplicate", reason="dedupe", flag_key=flag_key)]
    for records in ([record], []):  # once the record is gone, only the ledger tells its type
        (story,) = told(found(records, ends))
        assert story.deliveries[0].detail == f"another event within dedupe.ttl_seconds has {same}"


def test_a_dead_letter_shows_its_own_detail() -> None:
    letters = {(0, 0, Kind.TRACK): Letter(Place(0, 9), "Pendo said no", replayed=True)}
    ends = [entry(0, outcome="dead_lettered", reason="rejected")]
    (story,) = told(found([at(0, decision("v"))], ends, letters=letters))
    assert (story.deliveries[0].detail, story.deliveries[0].letter) == (
        "Pendo said no",
        letters[0, 0, Kind.TRACK],
    )


def test_a_record_that_could_not_be_decoded_has_one_delivery_even_if_it_can_be_decoded_now() -> None:
    ends = [entry(0, "unknown", "dead_lettered", reason="unknown_schema")]
    (story,) = told(found([at(0, decision("v"))], ends, committed=1))
    assert states(story) == [(Kind.UNKNOWN, State.DEAD_LETTERED)]


def test_the_story_of_a_record_that_is_gone_comes_from_the_ledger() -> None:
    ends = [entry(5, visitor_id="v", event_id="e", occurred_at=START_MS), entry(5, "visitor_metadata")]
    gone, kept = told(found([at(7, decision("v"))], ends, committed=6))
    assert (gone.record, gone.event_id, gone.occurred_at) == (None, "e", START_MS)
    assert states(gone) == [(kind, State.DELIVERED) for kind in BOTH]
    assert states(kept) == [(kind, State.PENDING) for kind in BOTH]


# The visitor or account of an event


def test_an_event_belongs_to_the_visitor_or_account_for_which_it_is_sent() -> None:
    shown = decision("v")
    account = AccountMetadata(event_id="e", occurred_at=0, account_id="v", values={})
    anonymous = TrackEvent(event_id="e", occurred_at=0, anonymous_id="v", event="x")
    known = TrackEvent(event_id="e", occurred_at=0, visitor_id="other", anonymous_id="v", event="x")
    assert [SUBJECT.has(each) for each in (shown, account, anonymous, known)] == [True, False, True, False]
    of_account = Subject.of("v", LedgerIds(), is_account=True)
    assert [of_account.has(each) for each in (shown, account, anonymous)] == [False, True, False]


def test_a_settlement_names_a_visitor_by_the_id_or_its_hash() -> None:
    keyed = LedgerIds(b"key")
    subject = Subject.of("v", keyed, is_account=False)
    assert subject.is_named_by(entry(0, visitor_id="v"))
    assert subject.is_named_by(entry(0, visitor_id=keyed.of("v")))
    assert not subject.is_named_by(entry(0, visitor_id=LedgerIds(b"other").of("v")))
    assert not subject.is_named_by(entry(0, account_id="v"))


def test_an_anonymous_visitor_is_found_by_pendos_name_and_by_the_services() -> None:
    service = TrackEvent(event_id="e", occurred_at=0, anonymous_id="cookie", event="x")
    agent = TrackEvent(event_id="e", occurred_at=0, anonymous_id="_PENDO_T_cookie", event="x")
    named = Subject.of("_PENDO_T_cookie", LedgerIds(), is_account=False)
    assert named.keys == {b"_PENDO_T_cookie", b"cookie"}
    assert named.has(service)
    assert named.has(agent)
    assert Subject.of("cookie", LedgerIds(), is_account=False).keys == {b"cookie"}
    assert Subject.of("_PENDO_T_", LedgerIds(), is_account=False).keys == {b"_PENDO_T_"}


# Waiting deliveries


def consumer(
    position: int | None = 10, *, paused: bool = False, track: str = "ok", **partition: Any
) -> ConsumerState:
    state = PartitionState(**{"position": position, "is_restored": True, "stalled": None, **partition})
    endpoints = {EndpointName.TRACK: EndpointSaid(track), EndpointName.METADATA: EndpointSaid("ok")}
    return ConsumerState("http://c", paused, endpoints, {0: state})


def waiting(
    *consumers: ConsumerState, held: Mapping[int, bool] | None = None, tried_at: int | None = None
) -> list[Wait]:
    """What the track events of two unsettled decisions wait for.

    `tried_at`: when an earlier decision was settled after one attempt, in ms; None: there is no earlier one.
    """
    records = [at(offset, decision("v", f"f{offset}")) for offset in (0, 1, 2)]
    ends = [] if tried_at is None else [entry(0, attempts=1)]
    what = found(records[len(ends) == 0 :], ends, settled_at=tried_at or 0, committed=len(ends))
    policy = Policy(can_send_metadata=True)
    stories = tell(what, Planner(policy), START_MS)
    around = Surroundings(START_MS, DeliverySettings(), 2.0, consumers, held)
    by_delivery = waits(stories, around)
    return [by_delivery[0, offset, Kind.TRACK] for offset in (1, 2)]


@pytest.mark.parametrize(
    ("state", "cause", "word"),
    [
        (consumer(1), Cause.NOT_READ, "0 records come before it"),
        (consumer(1, stalled="registry: schema 7"), Cause.STALLED, "registry: schema 7"),
        (consumer(1, is_restored=False), Cause.NOT_READ, "still reading the partition's ledger"),
        (consumer(1, paused=True, track="unreachable"), Cause.INTAKE_PAUSED, "unreachable"),
        (consumer(2, track="unauthorized"), Cause.PENDO, "unauthorized"),
        (consumer(2), Cause.TURN, "retried at least every 60 s"),
        (consumer(None), Cause.TURN, "it is next to be sent"),
    ],
)
def test_the_consumer_of_the_partition_reports_what_its_first_delivery_waits_for(
    state: ConsumerState, cause: Cause, word: str
) -> None:
    wait = waiting(state)[0]
    assert wait.cause is cause
    assert word in wait.detail
    assert wait.expires_at == START_MS + 600_000_000


def test_the_next_delivery_waits_an_interval_after_the_one_before() -> None:
    first, second = waiting(consumer())
    assert (first.cause, first.not_before) == (Cause.TURN, None)
    assert (second.cause, second.not_before) == (Cause.PACE, START_MS + 1_000)


def test_the_interval_counts_from_the_last_request() -> None:
    first, second = waiting(consumer(), tried_at=START_MS - 400)
    assert (first.cause, first.not_before) == (Cause.PACE, START_MS + 600)
    assert second.not_before == START_MS + 1_600


def test_without_an_answer_from_a_consumer_the_cause_is_not_guessed() -> None:
    assert [wait.cause for wait in waiting()] == [Cause.UNKNOWN, Cause.PACE]
    assert [wait.cause for wait in waiting(held={0: True})] == [Cause.UNKNOWN, Cause.PACE]
    assert {wait.cause for wait in waiting(held={0: False})} == {Cause.NO_CONSUMER}


@pytest.mark.parametrize(
    ("given", "admin", "urls"),
    [
        ((), {}, ["http://127.0.0.1:8080"]),
        ((), {"host": "::"}, ["http://[::1]:8080"]),
        ((), {"host": "10.0.0.7", "port": 9}, ["http://10.0.0.7:9"]),
        ((), {"port": 0}, []),
        (("http://a:1/", "http://b:2"), {"port": 0}, ["http://a:1", "http://b:2"]),
    ],
)
def test_a_consumer_is_asked_where_it_listens(
    given: tuple[str, ...], admin: Mapping[str, Any], urls: list[str]
) -> None:
    assert admin_urls(given, AdminSettings(**admin)) == urls


# Pendo's values


def compared(what: Found, metadata: Mapping[str, Any], fields: Mapping[str, str] | None = None) -> FieldStory:
    catalog = {} if fields is None else {("visitor", "custom"): fields}
    (field,) = compare(
        told(what), SUBJECT, AtPendo(is_known=True, metadata={"custom": metadata}, fields=catalog)
    )
    return field


def values(offset: int, value: Any, minutes: int = 0) -> FoundRecord:
    event = VisitorMetadata(
        event_id=f"e{offset}", occurred_at=START_MS + minutes, visitor_id="v", values={"plan": value}
    )
    return at(offset, event)


def sent(offset: int, outcome: str = "delivered", reason: str = "ok") -> LedgerEntry:
    return entry(offset, "visitor_metadata", outcome, reason=reason)


def test_a_field_is_compared_by_its_newest_delivered_value() -> None:
    what = found([values(0, "new", 1), values(1, "old", 0)], [sent(0), sent(1)], committed=2)
    field = compared(what, {"plan_api": "new"}, {"plan": "plan_api"})
    assert (field.verdict, field.api_name, field.sent) == (Verdict.SAME, "plan_api", "new")
    other = compared(what, {"plan_api": "old"}, {"plan": "plan_api"})
    assert (other.verdict, other.sent, other.value) == (Verdict.DIFFERENT, "new", "old")


@pytest.mark.parametrize(
    ("ours", "pendos"), [(5, "5"), (5, 5.0), (True, "true"), (None, None), (None, ""), (["a"], ["a"])]
)
def test_a_value_may_have_another_type_at_pendo(ours: Any, pendos: Any) -> None:
    assert (
        compared(found([values(0, ours)], [sent(0)], committed=1), {"plan": pendos}).verdict is Verdict.SAME
    )


def test_a_newer_value_that_waits_is_reported() -> None:
    what = found([values(0, "old"), values(1, "new", 1)], [sent(0)], committed=1)
    assert compared(what, {"plan": "old"}).verdict is Verdict.WAITING
    assert compared(what, {"plan": "new"}).verdict is Verdict.DIFFERENT


def test_a_field_that_was_never_sent_says_why() -> None:
    what = found([values(0, "x")], [sent(0, "dropped", "field_missing")], committed=1)
    field = compared(what, {})
    assert (field.verdict, field.has_value) == (Verdict.NOT_SENT, False)
    assert field.detail.startswith("field_missing: ")


def test_a_value_that_was_settled_as_unchanged_counts_as_delivered() -> None:
    what = found([values(0, "x"), values(1, "x", 1)], [sent(1, "duplicate", "unchanged")], committed=2)
    assert compared(what, {"plan": "x"}).verdict is Verdict.SAME
