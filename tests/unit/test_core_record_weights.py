"""The counted size of a record is what it takes in memory, so that `delivery.max_pending_bytes` bounds memory.

Before the fix, a record of 64 KiB with 10,000 fields took 3.8 MB while it waited, but counted as 64 KB: the 1,000 of
them that `delivery.max_pending_bytes` allowed took 3.8 GB.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine_steps import NO_LINGER, attempts_at, engine_with, instant
from engine_world import START_MS
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.planning.visitor_names import LONG_ID_CHARACTERS
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.record_weights import (
    FIELD_BYTES,
    HEADER_BYTES,
    LIST_ITEM_BYTES,
    MAX_METADATA_FIELDS,
    NOT_ASCII,
    SHORT_RECORD_BYTES,
    event_weight,
    headers_weight,
)
from flagpost_consumer.core.records import DecodeFailure, EventFacts, Headers, HeldRecord, Record
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import (
    AccountMetadata,
    Context,
    DecisionEvent,
    Decoder,
    Event,
    TrackEvent,
    VisitorMetadata,
    encode_single_object,
)

EVERY_RECORD_BYTES = 12_000
"""Bytes that any record may take besides those that are counted; `delivery.max_pending` bounds them."""
RECORDS = 4
LONG = "a" * 50_000 + "\N{GRINNING FACE}"
"""One wide character makes each of the others take four bytes."""
ACCENTED = "é" * 25_000
"""Each character takes one byte, and two more once it has been sent."""


def visitor(number: int, **values: object) -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"e{number}",
        occurred_at=START_MS,
        visitor_id=f"v{number}",
        values=values,  # type: ignore[arg-type]
    )


def account(account_id: str) -> AccountMetadata:
    return AccountMetadata(event_id="e", occurred_at=START_MS, account_id=account_id, values={"a": 1})


def track(number: int, **given: object) -> TrackEvent:
    fields = {"visitor_id": f"v{number}", "event": "Step", **given}
    return TrackEvent(event_id=f"e{number}", occurred_at=START_MS, **fields)  # type: ignore[arg-type]


def decision(number: int, **given: object) -> DecisionEvent:
    fields = {"visitor_id": f"v{number}", "flag_key": "f", "enabled": True, "variation_key": "on", **given}
    return DecisionEvent(
        event_id=f"e{number}",
        occurred_at=START_MS,
        decision_event_dispatched=True,
        **fields,  # type: ignore[arg-type]
    )


HEAVY: dict[str, Callable[[int], Event]] = {
    "as many fields as may be": lambda n: visitor(n, **{f"{i:x}": True for i in range(MAX_METADATA_FIELDS)}),
    "too many fields": lambda n: visitor(n, **{f"{i:x}": True for i in range(10_000)}),
    "a list of many": lambda n: visitor(n, l=["ab"] * 20_000),
    "a list of nothing": lambda n: visitor(n, l=[""] * 50_000),
    "a value of wide letters": lambda n: visitor(n, l=LONG),
    "a field of wide letters": lambda n: visitor(n, **{LONG: 1}),
    "an account of wide letters": lambda n: account(f"{LONG}{n}"),
    "accents": lambda n: visitor(n, l=ACCENTED),
    "many properties": lambda n: track(n, properties={f"{i:x}": True for i in range(9_000)}),
    "a context of wide letters": lambda n: track(n, context=Context(url=LONG)),
    "a visitor of wide letters": lambda n: track(n, visitor_id=f"{LONG}{n}"),
    "an event of wide letters": lambda n: track(n, event=LONG),
    "a flag of wide letters": lambda n: decision(n, flag_key=LONG),
    "a variation of wide letters": lambda n: decision(n, variation_key=LONG),
    "attributes": lambda n: decision(n, attributes={f"{i:x}": True for i in range(9_000)}),
    "an ordinary decision": decision,
    "five fields": lambda n: visitor(n, a="x", b=n, c=True, d=None, e="longer than a word"),
}


def records(make: Callable[[int], Event]) -> list[Record]:
    return decoded(values_of(make))


def values_of(make: Callable[[int], Event]) -> list[bytes]:
    return [encode_single_object(make(number)) for number in range(RECORDS)]


def decoded(values: Sequence[bytes], headers: Callable[[], Headers] = tuple) -> list[Record]:
    decoder = Decoder()
    return [
        Record(0, n, START_MS, f"v{n}".encode(), bytes(bytearray(value)), headers(), decoder.decode(value))
        for n, value in enumerate(values)
    ]


@contextmanager
def more_memory(make: Callable[[], list[Record]]) -> Iterator[Callable[[], int]]:
    """Return what tells how many more bytes of memory are in use than before."""
    # Allocate what is made only once, and not for each record, before measuring.
    other = engine_with(NO_LINGER)
    other.receive(make(), instant(1.0))
    attempts_at(other, 1.0)
    del other

    def in_use() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    tracemalloc.start()
    try:
        before = in_use()
        yield lambda: in_use() - before
    finally:
        tracemalloc.stop()


def check_counted(engine: Engine, held: int) -> None:
    """Check that records that take `held` bytes are counted with as many."""
    assert held < engine.pending_bytes + RECORDS * EVERY_RECORD_BYTES, f"{held / RECORDS:.0f} bytes a record"


@pytest.mark.thorough
@pytest.mark.parametrize("name", HEAVY)
def test_the_memory_that_a_record_takes_is_counted(name: str) -> None:
    """While it waits, and while it is in flight."""
    engine, values = engine_with(NO_LINGER), values_of(HEAVY[name])
    with more_memory(lambda: decoded(values)) as held:
        engine.receive(decoded(values), instant(1.0))
        check_counted(engine, held())
        attempts = attempts_at(engine, 1.0)
        for attempt in attempts:
            attempt.body = b""  # there are at most `pendo.max_connections` bodies
        check_counted(engine, held())


def test_headers_are_counted() -> None:
    """Before the fix, 60,000 headers of one letter took 3.8 MB and counted as 60 KB."""

    def headers() -> Headers:
        return tuple((chr(0x4E00 + n % 20_000), b"") for n in range(20_000))

    engine, values = engine_with(NO_LINGER), values_of(decision)
    with more_memory(lambda: decoded(values, headers)) as held:
        engine.receive(decoded(values, headers), instant(1.0))
        check_counted(engine, held())


TEXT = "t" * 1_000
"""The text in each text field of an event."""
WHOLE_CONTEXT = Context(ip=TEXT, user_agent=TEXT, url=TEXT, title=TEXT, locale=TEXT)


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        (track(0, visitor_id=TEXT, event=TEXT), 2),
        (track(0, visitor_id=TEXT, anonymous_id=TEXT, event=TEXT, account_id=TEXT), 4),
        (track(0, visitor_id=TEXT, event=TEXT, context=WHOLE_CONTEXT), 7),
        (decision(0, visitor_id=TEXT, flag_key=TEXT, variation_key=TEXT), 4),
        (decision(0, visitor_id=TEXT, account_id=TEXT, flag_key=TEXT, variation_key=TEXT), 5),
        (decision(0, visitor_id=TEXT, flag_key=TEXT, variation_key=TEXT, context=WHOLE_CONTEXT), 9),
    ],
)
def test_each_text_of_a_long_record_counts_and_a_flag_twice(event: Event, texts: int) -> None:
    """The name of the metadata field contains the flag's key."""
    assert event_weight(event, SHORT_RECORD_BYTES + 1) == texts * TEXT.__sizeof__()
    assert event_weight(event, SHORT_RECORD_BYTES) == 0


def test_each_field_counts_with_its_name_its_value_and_what_is_in_a_list() -> None:
    event = VisitorMetadata(
        event_id="e",
        occurred_at=START_MS,
        visitor_id=TEXT,
        account_id=TEXT,
        values={TEXT: TEXT, "n": 1, "l": [TEXT, TEXT]},
    )
    (a_list,) = [value for value in event.values.values() if isinstance(value, list | tuple)]
    texts = 6 * TEXT.__sizeof__() + 2 * "n".__sizeof__()
    of_list = a_list.__sizeof__() + 2 * LIST_ITEM_BYTES
    assert event_weight(event, SHORT_RECORD_BYTES + 1) == 3 * FIELD_BYTES + texts + of_list
    assert event_weight(event, SHORT_RECORD_BYTES) == 3 * FIELD_BYTES


def test_an_account_is_counted_by_its_id() -> None:
    assert event_weight(account(TEXT), 1_000) == FIELD_BYTES + TEXT.__sizeof__() + "a".__sizeof__()


@pytest.mark.parametrize("more", [0, 1])
def test_the_fields_of_an_event_with_too_many_are_not_kept_and_do_not_count(more: int) -> None:
    event = visitor(1, **{f"f{n:04}": True for n in range(MAX_METADATA_FIELDS + more)})
    ids, names = "v1".__sizeof__(), MAX_METADATA_FIELDS * "f0000".__sizeof__()
    kept = MAX_METADATA_FIELDS * FIELD_BYTES + names
    assert event_weight(event, 100_000) == (ids if more else ids + kept)


def test_a_text_that_is_not_ascii_counts_with_the_size_that_it_has_once_it_was_sent() -> None:
    plain, wide = decision(0, flag_key="f" * 1_000), decision(0, flag_key="f" * 999 + "é")
    longer = 2 * (NOT_ASCII * wide.flag_key.__sizeof__() - plain.flag_key.__sizeof__())
    assert event_weight(wide, 2_000) - event_weight(plain, 2_000) == longer


def test_headers_count_with_their_names_and_values() -> None:
    assert headers_weight(()) == 0
    assert headers_weight((("name", b"value"), ("n", None))) == 2 * HEADER_BYTES + 10


# What is held of a record


HEADERS: Headers = (("name", b"value"),)


def held(event: Event | DecodeFailure, *, key: bytes | None = b"key", truncated: bool = False) -> HeldRecord:
    """The held form of a record with a value of a thousand bytes and a header."""
    return Record(3, 7, START_MS + 5, key, bytes(1_000), HEADERS, event, truncated=truncated).held()


def test_a_record_holds_its_own_bytes_its_headers_and_what_is_kept_of_its_event() -> None:
    event = decision(0, flag_key=TEXT)
    size = 1_003 + headers_weight(HEADERS) + event_weight(event, 1_003)
    assert held(event).size_bytes == size
    assert held(event, key=None).size_bytes == size - 3
    assert Record(3, 7, START_MS, b"key", None, (), event).held().size_bytes == 3


def test_only_the_bytes_of_a_record_that_could_not_be_decoded_are_kept() -> None:
    failure = DecodeFailure(Reason.UNDECODABLE, "cut short")
    for truncated in (False, True):
        kept = held(failure, truncated=truncated)
        assert kept[:6] == (3, 7, START_MS + 5, b"key", bytes(1_000), HEADERS)
        assert kept.size_bytes == 1_003 + headers_weight(HEADERS)
        assert (kept.occurred_at, kept.facts, kept.truncated) == (None, EventFacts(), truncated)


def test_the_facts_of_an_event_for_the_ledger_are_kept_with_its_record() -> None:
    one = held(decision(0, account_id="acme", variation_key="b"))
    assert one[:6] == (3, 7, START_MS + 5, b"key", bytes(1_000), HEADERS)
    assert (one.occurred_at, one.truncated) == (START_MS, False)
    assert one.facts == EventFacts("e0", "v0", "acme", "f", "b")
    assert held(decision(0, enabled=False, variation_key=None)).facts.variation_key == "off"
    assert held(track(1, account_id="acme")).facts == EventFacts("e1", "v1", "acme")
    assert held(account("acme")).facts == EventFacts("e", None, "acme")


def test_the_limit_of_bytes_leaves_room_for_as_many_ordinary_records_as_may_be_pending() -> None:
    """Ordinary records must reach `delivery.max_pending` before `delivery.max_pending_bytes`."""
    delivery = Policy().delivery
    for name in ("an ordinary decision", "five fields"):
        engine = engine_with(NO_LINGER)
        engine.receive(records(HEAVY[name]), instant(1.0))
        assert engine.pending_bytes / RECORDS < delivery.max_pending_bytes / delivery.max_pending


def test_an_event_has_a_thousand_fields_at_most() -> None:
    planner = Planner(Policy())
    most = visitor(1, **{f"f{n}": n for n in range(MAX_METADATA_FIELDS)})
    (planned,) = planner.plan(most, START_MS)
    assert planned.ending is None
    more = visitor(1, **{f"f{n}": n for n in range(MAX_METADATA_FIELDS + 1)})
    (planned,) = planner.plan(more, START_MS)
    assert planned.ending is not None
    assert planned.ending.reason is Reason.INVALID
    assert planned.ending.detail == (
        "values has 1001 fields, but an event may have 1000: publish them in several"
    )
    assert planned.metadata is not None
    assert planned.metadata.values == {}


def test_repairs_are_counted_and_not_held() -> None:
    engine = engine_with(NO_LINGER)
    (made, *_) = records(HEAVY["many properties"])
    engine.receive([made], instant(1.0))
    assert engine.accounts.repairs[Rule.SIZE] > 8_900
    (attempt,) = attempts_at(engine, 1.0)
    assert isinstance(attempt, TrackAttempt)
    assert attempt.lane.queue[0].planned.repairs == ()


def test_a_long_visitor_id_is_not_kept_while_its_lane_rests() -> None:
    """If a thousand lanes a second rest for a second each, ids of 64 KB would take 64 MB."""
    engine = engine_with(NO_LINGER)
    longest, longer = "v" * LONG_ID_CHARACTERS, "v" * (LONG_ID_CHARACTERS + 1)
    made = [
        Record(0, n, START_MS, b"", b"", (), track(n, visitor_id=visitor_id))
        for n, visitor_id in enumerate((longest, longer, longer, longer + "w"))
    ]
    engine.receive(made, instant(1.0))
    lanes = dict(engine.hottest_visitors(10))
    assert sorted(lanes.values()) == [1, 1, 2], "the same id is the same lane"
    assert longest in lanes
    assert max(map(len, lanes)) == LONG_ID_CHARACTERS
