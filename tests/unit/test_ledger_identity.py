"""The ledger when a topic was created again or a log went back: what it settles, and where a restart begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaException, TopicPartition

from deadlines import stretched
from flagpost_consumer.adapters.kafka import topic_ids
from flagpost_consumer.adapters.kafka.commit_metadata import CommitMetadata
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.kafka.topic_watch import (
    ENDS_SECONDS,
    IDS_SECONDS,
    MOST_IDS_SECONDS,
    TopicWatch,
)
from flagpost_consumer.adapters.ledger.restore import LedgerRestore, _Log, _Reading, _Wanted
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.books.ledger_window import OUT_OF_ORDER, LedgerWindow
from flagpost_consumer.core.books.restoration import Restoration, Settled
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import DedupeSettings, Policy
from flagpost_consumer.core.records import Gap
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements, encode_settlements
from ledger_writing import entry

KEY = b"k" * 16
AT_MS = 1_700_000_000_000
DELIVERED: Settled = (6, Kind.TRACK, Outcome.DELIVERED, KEY, AT_MS)


def test_settlements_of_another_topic_settle_nothing_and_keep_their_claims() -> None:
    restoration = Restoration(5, Policy().dedupe)
    restoration.take_claims(0, [DELIVERED])
    assert restoration.settled.kinds(6) == frozenset()
    assert restoration.dedupe.claim(KEY, AT_MS, 7) == 6
    assert restoration.window.oldest_needed(5, AT_MS) == 0, "the claim is still needed"
    assert restoration.window.oldest_needed(5, AT_MS + 1) == 1, "and nothing else of it"


def test_settlements_written_before_the_log_went_back_settle_nothing() -> None:
    restoration = Restoration(5, Policy().dedupe, settles_from=3)
    restoration.take(2, [DELIVERED])
    assert restoration.settled.kinds(6) == frozenset()
    restoration.take(3, [DELIVERED])
    assert restoration.settled.kinds(6) == {Kind.TRACK}
    assert restoration.dedupe.claim(KEY, AT_MS, 7) == 6
    assert restoration.window.settles_from == 3


def test_a_ledger_that_is_created_again_is_needed_from_its_beginning() -> None:
    """Its offsets begin at 0: a commit that named an offset of the old ledger would skip records that are needed."""
    window = LedgerWindow()
    window.note(50_000, 1, AT_MS, 10)
    window.note(3, 1, AT_MS, 11)
    assert window.oldest_needed(12, AT_MS) == 0
    assert window.oldest_needed(12, AT_MS + 1) == 4


def test_acknowledgements_out_of_order_are_not_taken_for_a_new_ledger() -> None:
    window = LedgerWindow()
    window.note(50_000, 1, AT_MS, 10)
    window.note(50_000 - OUT_OF_ORDER + 10, 1, AT_MS, 11)
    assert window.oldest_needed(10, AT_MS) == 50_000


# Where a restart begins


def start_of(
    log: _Log,
    *,
    topic_id: str | None = "now",
    ledger_id: str | None = "ledger",
    went_back_to: Start | None = None,
) -> tuple[Start, Gap | None, int, list[str]]:
    """How LedgerRestore starts on a log whose ledger ends at 900: start, gap, `settles_from`, and its reports."""
    told: list[str] = []
    handler = SimpleNamespace(
        on_other_topic=lambda *_: told.append("other"), on_log_back=lambda *_: told.append("back")
    )
    loop = SimpleNamespace(call_soon_threadsafe=lambda what, *arguments: what(*arguments))
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    restore = LedgerRestore(
        kafka, DedupeSettings(), cast("Any", handler), cast("Any", loop), cast("TopicIds", None)
    )
    partition = Partition(0, 0.0, Dedupe(1.0, 1, DedupeCounts()))
    start, gap, settles_from = restore._start(
        log, _Wanted(partition, 0.0, went_back_to), topic_id, ledger_id, 900
    )
    return start, gap, settles_from, told


def log_of(low: int, high: int, committed: int, epoch: int | None = None, **said: Any) -> _Log:
    """A log whose group has committed an offset (-1001: none)."""
    place = (
        TopicPartition("t", 0, committed)
        if epoch is None
        else TopicPartition("t", 0, committed, leader_epoch=epoch)
    )
    return _Log(low, high, place, CommitMetadata(**said))


@pytest.mark.parametrize(
    ("log", "more", "start", "gap", "settles_from", "told"),
    [
        (log_of(0, 100, 50, 4, topic_id="now"), {}, Start(50, 4, "now", "ledger"), None, 0, []),
        (log_of(0, 100, 50), {}, Start(50, None, "now", "ledger"), None, 0, []),
        (log_of(7, 100, -1001), {}, Start(7, None, "now", "ledger"), None, 0, []),
        (log_of(60, 100, 50, topic_id="now"), {}, Start(60, None, "now", "ledger"), Gap(50, 60), 0, []),
        # Another topic, whether it is shorter or longer than the one before.
        (log_of(0, 100, 50, topic_id="then"), {}, Start(0, None, "now", "ledger"), None, 0, ["other"]),
        (log_of(0, 10, 50, topic_id="then"), {}, Start(0, None, "now", "ledger"), None, 0, ["other"]),
        # The commit is beyond the end: Kafka's client finds by its epoch where the log went back.
        (log_of(0, 10, 50, 4, topic_id="now"), {}, Start(50, 4, "now", "ledger"), None, 0, []),
        # The same without a topic id and an epoch.
        (log_of(0, 10, 50), {"topic_id": None}, Start(0, None, None, "ledger"), None, 900, ["other"]),
        # The broker has not returned the id yet: until it does, the commit's is used.
        (
            log_of(0, 100, 50, 4, topic_id="then"),
            {"topic_id": None},
            Start(50, 4, "then", "ledger"),
            None,
            0,
            [],
        ),
        (
            log_of(60, 100, 50, topic_id="then"),
            {"topic_id": None},
            Start(60, None, "then", "ledger"),
            Gap(50, 60),
            0,
            [],
        ),
        (log_of(7, 100, -1001), {"topic_id": None}, Start(7, None, None, "ledger"), None, 0, []),
        # The log went back while it was read.
        (
            log_of(0, 60, 50, topic_id="now"),
            {"went_back_to": Start(40, None, "now")},
            Start(40, None, "now", "ledger"),
            None,
            900,
            ["back"],
        ),
        # Uncommitted records below that offset were handed back when the partition was reset: they are read again.
        (
            log_of(0, 60, 30, topic_id="now"),
            {"went_back_to": Start(40, None, "now")},
            Start(30, None, "now", "ledger"),
            None,
            900,
            ["back"],
        ),
        # It may go back once more before it is read: Kafka's client finds that by the commit's epoch, too.
        (
            log_of(0, 60, 30, 4, topic_id="now"),
            {"went_back_to": Start(40, None, "now")},
            Start(30, 4, "now", "ledger"),
            None,
            900,
            ["back"],
        ),
        (
            log_of(0, 60, 50, 4, topic_id="now"),
            {"went_back_to": Start(40, 5, "now")},
            Start(40, 5, "now", "ledger"),
            None,
            900,
            ["back"],
        ),
        (
            log_of(7, 60, -1001),
            {"went_back_to": Start(40, None, "now")},
            Start(7, None, "now", "ledger"),
            None,
            900,
            ["back"],
        ),
        (
            log_of(35, 60, 30, topic_id="now"),
            {"went_back_to": Start(40, None, "now")},
            Start(35, None, "now", "ledger"),
            Gap(30, 35),
            900,
            ["back"],
        ),
        (
            log_of(0, 60, -1001),
            {"went_back_to": Start(40, None, "then")},
            Start(0, None, "now", "ledger"),
            None,
            0,
            ["other"],
        ),
        # It went back before: the commit says from where on the ledger counts, if the ledger is still the same.
        (
            log_of(0, 60, 50, topic_id="now", ledger_id="ledger", settles_from=70),
            {},
            Start(50, None, "now", "ledger"),
            None,
            70,
            [],
        ),
        (
            log_of(0, 60, 50, topic_id="now", ledger_id="another", settles_from=70),
            {},
            Start(50, None, "now", "ledger"),
            None,
            0,
            [],
        ),
        (
            log_of(0, 60, 50, topic_id="now", ledger_id="ledger", settles_from=70),
            {"ledger_id": None},
            Start(50, None, "now", None),
            None,
            70,
            [],
        ),
    ],
)
def test_where_a_restart_begins(
    log: _Log, more: dict[str, Any], start: Start, gap: Gap | None, settles_from: int, told: list[str]
) -> None:
    assert start_of(log, **more) == (start, gap, settles_from, told)


@pytest.mark.parametrize(
    ("known", "told", "commits", "is_retried"),
    [
        ("then", [], {"now"}, True),  # which of the two is the newer one, only Kafka knows
        ("then", ["flagpost.ledger"], {"now"}, True),
        ("then", [], {"then", None}, False),
        ("now", ["flagpost.events"], {"then"}, False),
        (None, [], {"now"}, False),  # a broker that tells no ids
    ],
)
def test_a_commit_of_another_topic_than_the_known_one_needs_an_answer(
    known: str | None, told: list[str], commits: set[str | None], is_retried: bool
) -> None:
    """A member that was cut off while the topic was created anew knows an old id. Before the fix, it took the commits
    of the new topic for those of an old one: it began at the beginning, and committed offsets that were passed.
    """
    ids = SimpleNamespace(get=lambda _: known, ask=lambda: told)
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    restore = LedgerRestore(kafka, DedupeSettings(), Mock(), Mock(), cast("TopicIds", ids))
    is_unconfirmed = restore._learn_ids()
    assert is_unconfirmed is (known is not None and "flagpost.events" not in told)
    expected = (
        pytest.raises(KafkaException, match="does not tell the topic's id") if is_retried else nullcontext()
    )
    with expected:
        if is_unconfirmed:
            restore._require_answer(commits)


def ledger_message(topic_id: str | None, offset: int) -> Any:
    """A ledger record that settles one offset of the topic with this id; each has another dedupe key."""
    delivered = entry(offset, dedupe_key=bytes([offset]) * 16, occurred_at=AT_MS)
    record = Settlements(
        group="flagpost", topic_id=topic_id, member="m", settled_at=AT_MS, entries=[delivered], gaps=[]
    )
    value = encode_settlements(record)
    return SimpleNamespace(value=lambda: value, headers=lambda: None)


def read_of(start: Start, topics: Sequence[str | None], *, is_another_topic: bool = False) -> _Reading:
    """Read a ledger with one record for each of `topics`; each settles its own offset, of the topic with that id."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    restore = LedgerRestore(kafka, DedupeSettings(), Mock(), Mock(), cast("TopicIds", None))
    partition = Partition(0, 0.0, Dedupe(1.0, 1, DedupeCounts()))
    restoration = Restoration(start.offset, Policy().dedupe)
    reading = _Reading(partition, restoration, start, None, 0.0, 0, len(topics), is_another_topic)
    for offset, topic_id in enumerate(topics):
        assert restore._take_record(reading, offset, ledger_message(topic_id, offset))
    return reading


@pytest.mark.parametrize(
    ("known", "topics", "settled", "taken_for"),
    [
        ("now", ["then", "now", None, "then"], {1, 2}, "now"),
        # What was written before anybody told an id is of the first topic that is named, or of an older one.
        ("now", [None, None, "then", "now"], {3}, "now"),
        ("now", [None, "now", "then", None], {0, 1, 3}, "now"),
        ("now", [None, None], {0, 1}, "now"),
        # The id is not known yet, and there is no commit: Kafka deletes the commits of a topic with the topic.
        (None, ["then", "then"], {0, 1}, "then"),
        (None, [None, "then", "now"], {0, 1}, "then"),
        (None, [None, None], {0, 1}, None),
    ],
)
def test_the_ledger_tells_the_topic_id_if_nothing_else_does(
    known: str | None, topics: list[str | None], settled: set[int], taken_for: str | None
) -> None:
    reading = read_of(Start(0, None, known), topics)
    offsets = {offset for offset in range(len(topics)) if reading.restoration.settled.kinds(offset)}
    assert offsets == settled
    assert reading.start.topic_id == taken_for
    for offset in range(len(topics)):
        claimed = reading.restoration.dedupe.claim(bytes([offset]) * 16, AT_MS, 99)
        assert claimed == offset, "claims are kept of every topic"


def test_a_ledger_that_names_no_topic_is_of_the_commits_and_not_of_another() -> None:
    """Before, a topic that was made anew after a start at which nobody had told its id lost its first records: the
    ledger settled these offsets, of the older topic.
    """
    reading = read_of(Start(0, None, "now"), [None, "now", None], is_another_topic=True)
    assert [offset for offset in range(3) if reading.restoration.settled.kinds(offset)] == [1]
    assert reading.restoration.dedupe.claim(bytes([0]) * 16, AT_MS, 99) == 0


# The broker's answers


class Described:
    """A broker that returns these ids, one answer after the other; None: it does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: dict[str, str] | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        monkeypatch.setattr(topic_ids, "_describe", self.describe)

    def describe(self, _: object, topics: Sequence[str]) -> dict[str, str]:
        assert topics == ["events"]
        self.asked += 1
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]) or {}


def ids_of(told: list[tuple[str, str, str | None]]) -> TopicIds:
    return TopicIds({"bootstrap.servers": "127.0.0.1:1"}, ["events"], lambda *each: told.append(each))


def test_a_new_id_is_reported_once_and_silence_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, the broker was never asked again after one request without an answer."""
    told: list[tuple[str, str, str | None]] = []
    Described(monkeypatch, None, {"events": "a"}, None, {"events": "a"}, {"events": "b"})
    ids = ids_of(told)
    assert [bool(ids.ask()) for _ in range(6)] == [False, True, False, True, True, True]
    assert told == [("events", "a", None), ("events", "b", "a")]
    assert ids.get("events") == "b"


def test_a_broker_that_returns_no_ids_is_asked_less_often_but_never_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = Described(monkeypatch, None)
    now = [0.0]
    intake = SimpleNamespace(ends_wanted=frozenset(), know_ends=lambda _: None)
    watch = TopicWatch({}, "events", ids_of([]), cast("Any", intake), monotonic=lambda: now[0])
    asked_at = []
    while now[0] < 1000:
        now[0] += ENDS_SECONDS
        before = described.asked
        watch.look()
        if described.asked > before:
            asked_at.append(now[0])
    pauses = [after - before for before, after in pairwise(asked_at)]
    assert asked_at[0] <= IDS_SECONDS + ENDS_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] <= MOST_IDS_SECONDS + ENDS_SECONDS


async def test_a_watch_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    described = Described(monkeypatch, {"events": "a"})
    monkeypatch.setattr("flagpost_consumer.adapters.kafka.topic_watch.ENDS_SECONDS", 0.01)
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Broken:
        @property
        def ends_wanted(self) -> frozenset[int]:
            if described.asked == 0:
                described.asked = 1
                raise RuntimeError("nobody thought of this")
            loop.call_soon_threadsafe(looked.set)
            return frozenset()

    watch = TopicWatch({}, "events", ids_of([]), cast("Any", Broken()))
    watch.start()
    await asyncio.wait_for(looked.wait(), stretched(10))
    watch.stop()
