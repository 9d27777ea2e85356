"""`flagpost dead-letters replay` against a real Kafka: what is replayed, what is left, and nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from dead_letter_topics import DeadLetterTopics, letter, run_dead_letters, settled, step, wall_ms
from flagpost_consumer.commands.dead_letters import transactions
from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.dead_letters.transactions import Replay, ReplayProducer
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.core.planning.plan import decision_key, event_key
from flagpost_consumer.terminal import asking
from flagpost_schemas import DecisionEvent, VisitorMetadata, encode_confluent, encode_single_object
from real_kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka

TTL_MS = 1_800_000


def decision(visitor: str = "v1", **fields: Any) -> DecisionEvent:
    """A decision that occurs now, unless `fields` says otherwise."""
    given = {"event_id": "d", "occurred_at": wall_ms(), "flag_key": "checkout", "enabled": True, **fields}
    return DecisionEvent(visitor_id=visitor, variation_key="b", decision_event_dispatched=True, **given)


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> DeadLetterTopics:
    return DeadLetterTopics(kafka, fresh_name("replay"))


def counts(matched: int, replayed: int, skipped: int = 0) -> dict[str, object]:
    return {"matched": matched, "replayed": replayed, "skipped": skipped, "dry_run": False}


@pytest.mark.kafka_core
def test_the_original_goes_back_and_the_dead_letter_is_marked(topics: DeadLetterTopics) -> None:
    event = decision()
    original = letter(
        event,
        original=[("trace", b"abc"), ("tag", b"1"), ("tag", None)],
        kind="visitor_metadata",
        source="events/2/40",
    )
    (place,) = topics.bury(original)
    assert topics.replay() == counts(1, 1)
    (put,) = topics.replayed()
    assert (put.key, put.value) == (b"v1", encode_single_object(event))
    assert put.headers == [
        ("trace", b"abc"),
        ("tag", b"1"),
        ("tag", None),
        ("flagpost-replay-of", b"events/2/40"),
        ("flagpost-replay-kind", b"visitor_metadata"),
    ]
    (marker,) = topics.markers()
    assert (marker.key, marker.value, marker.partition) == (b"v1", None, int(place.split("/")[0]))
    assert marker.headers == [("flagpost-replayed", place.encode())]


def test_a_replayed_dead_letter_is_not_listed_and_not_replayed_again(topics: DeadLetterTopics) -> None:
    topics.bury(letter(step("a", "v1")), letter(step("b", "v2")))
    assert topics.replay("--visitor", "v1") == counts(1, 1)
    assert [line["key"] for line in topics.listed()] == ["v2"]
    assert {line["key"]: line["replayed"] for line in topics.listed("--all")} == {"v1": True, "v2": False}
    assert topics.replay() == counts(1, 1)
    assert topics.replay() == counts(0, 0)
    assert sorted(put.key or b"" for put in topics.replayed()) == [b"v1", b"v2"]


def test_a_visitors_events_go_back_to_its_partition_in_their_order(topics: DeadLetterTopics) -> None:
    events = [step(f"{visitor}-{n}", visitor) for n in range(40) for visitor in ("v1", "v2", "v3", "v4")]
    topics.bury(*map(letter, events))
    assert topics.replay() == counts(160, 160)
    put_back = topics.replayed()
    for visitor in ("v1", "v2", "v3", "v4"):
        of_visitor = [put for put in put_back if put.key == visitor.encode()]
        assert len({put.partition for put in of_visitor}) == 1
        assert [put.value for put in of_visitor] == [
            encode_single_object(event) for event in events if event.visitor_id == visitor
        ]


@pytest.mark.kafka_core
def test_a_dry_run_counts_and_writes_nothing(topics: DeadLetterTopics) -> None:
    topics.bury(letter(step("a")), letter(step("b")), letter(step("old", occurred_at=1_000)))
    assert topics.replay("--dry-run") == {"matched": 3, "replayed": 0, "skipped": 1, "dry_run": True}
    assert (
        "2 of 3 dead letters would be replayed; nothing was written"
        in topics.run("replay", "--dry-run").stdout
    )
    assert topics.replayed() == topics.markers() == []


def test_the_limit_takes_the_oldest_and_is_not_used_up_by_what_is_skipped(topics: DeadLetterTopics) -> None:
    letters = [letter(step(f"e{n}", f"v{n}"), at=wall_ms() - 1_000 * (10 - n)) for n in range(4)]
    topics.bury(letter(step("old", occurred_at=1_000), at=5), *reversed(letters))
    assert topics.replay("--limit", "2") == counts(3, 2, 1)
    assert sorted(put.key or b"" for put in topics.replayed()) == [b"v0", b"v1"]


@pytest.mark.parametrize(
    ("distance_ms", "outcome", "kind", "skipped"),
    [
        (0, "delivered", "track", 1),
        (TTL_MS - 1, "delivered", "track", 1),
        (-TTL_MS + 1, "delivered", "track", 1),
        (TTL_MS, "delivered", "track", 0),
        (-TTL_MS, "delivered", "track", 0),
        (0, "duplicate", "track", 0),
        (0, "dead_lettered", "track", 0),
        (0, "delivered", "visitor_metadata", 0),
    ],
)
def test_a_track_is_skipped_only_if_the_same_was_delivered_within_the_ttl_by_event_time(
    topics: DeadLetterTopics, distance_ms: int, outcome: str, kind: str, skipped: int
) -> None:
    event = step("e1")
    topics.bury(letter(event))
    same = step("e1", occurred_at=event.occurred_at + distance_ms)
    topics.settle(settled(same, event_key("e1"), outcome=outcome, kind=kind))
    assert topics.replay() == counts(1, 1 - skipped, skipped)
    assert len(topics.replayed()) == len(topics.markers()) == 1 - skipped


def test_a_delivery_before_the_dead_letter_counts_as_well(topics: DeadLetterTopics) -> None:
    """An event that was dead-lettered before it could be read was never compared with earlier deliveries."""
    event = decision()
    topics.settle(settled(step("e", occurred_at=event.occurred_at), decision_key("v1", "checkout", "b")))
    topics.bury(letter(event, at=wall_ms() + 60_000))
    result = topics.run("replay")
    assert result.exit_code == 0, result.output
    assert "0 of 1 dead letters were replayed" in result.stdout
    assert "skipped 1: a duplicate of it was delivered: " in result.stdout


def test_without_a_ttl_there_are_no_duplicates(topics: DeadLetterTopics) -> None:
    event = step("e1")
    topics.bury(letter(event), letter(event, source="events/0/8"))
    topics.settle(settled(event, event_key("e1")))
    assert topics.replay(dedupe__ttl_seconds=0) == counts(2, 2)


def test_deliveries_of_another_group_do_not_count(topics: DeadLetterTopics) -> None:
    event = step("e1")
    topics.bury(letter(event))
    topics.settle(settled(event, event_key("e1")), group="another")
    assert topics.replay() == counts(1, 1)


def test_of_two_duplicates_only_one_is_replayed_at_a_time(topics: DeadLetterTopics) -> None:
    first, second = decision(), decision(event_id="d2", occurred_at=wall_ms() + 1_000)
    places = topics.bury(letter(first), letter(second))
    result = topics.run("replay")
    assert "skipped 1: it is a duplicate of one that is replayed now" in result.stdout
    assert places[1] in result.stdout
    # The first becomes a dead letter again: it may be replayed again, and the second still waits.
    topics.bury(letter(first, source="events/0/8"))
    assert topics.replay() == counts(2, 1, 1)


def test_a_damaged_ledger_record_is_reported_and_one_of_a_later_release_ends_the_run(
    topics: DeadLetterTopics,
) -> None:
    topics.bury(letter(step("e1", "v1")), letter(step("e2", "v2")))
    topics.write_ledger(b"damaged")
    result = topics.run("replay", "--visitor", "v1")
    assert result.exit_code == 0, result.output
    assert "records of the ledger that cannot be read: 1; " in result.stderr
    topics.write_ledger(b"\xc3\x01" + bytes(8))
    result = topics.run("replay", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "upgrade Flagpost" in result.stderr
    assert len(topics.replayed()) == 1


def test_what_cannot_be_replayed_is_left_and_reported_with_the_reason(topics: DeadLetterTopics) -> None:
    confluent = encode_confluent(step("c", "v5"), 77)
    old = wall_ms() - 601_000_000
    left = {
        "older than delivery.max_age_seconds": letter(step("old", "v1", occurred_at=old)),
        "too large for the dead-letter topic": letter(None, truncated="true"),
        "cannot be read here": letter(confluent),
        "no delivery of its kind": letter(step("m", "v6"), kind="visitor_metadata"),
    }
    places = topics.bury(*left.values())
    result = topics.run("replay", "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout == '{"matched":4,"replayed":0,"skipped":4,"dry_run":false}\n'
    for reason, place in zip(left, places, strict=True):
        assert any(reason in line and line.endswith(f": {place}") for line in result.stderr.splitlines())
    assert len(topics.listed()) == 4


def test_metadata_is_never_too_old_to_be_replayed(topics: DeadLetterTopics) -> None:
    values = VisitorMetadata(event_id="m", occurred_at=1_000, visitor_id="v1", values={"plan": "pro"})
    topics.bury(
        letter(values, kind="visitor_metadata"),
        letter(decision("v2", occurred_at=1_000), kind="visitor_metadata"),
        letter(decision("v3", occurred_at=1_000), kind="track"),
    )
    assert topics.replay() == counts(3, 2, 1)


def test_without_visitor_metadata_a_decisions_metadata_is_not_replayed(
    topics: DeadLetterTopics,
) -> None:
    topics.bury(letter(decision(), kind="visitor_metadata"))
    assert topics.replay(decisions__visitor_metadata=False) == counts(1, 0, 1)


@pytest.mark.parametrize("value", [b"\xffnonsense", b"\xc3\x01" + bytes(8), b"", None])
def test_a_record_that_the_consumer_could_not_read_is_replayed_unchanged(
    topics: DeadLetterTopics, value: bytes | None
) -> None:
    topics.bury(letter(value, kind="unknown", reason="undecodable"))
    assert topics.replay() == counts(1, 1)
    (put,) = topics.replayed()
    assert put.value == value
    assert put.header("flagpost-replay-kind") == "unknown"


def test_of_a_record_that_can_be_read_now_only_what_is_no_duplicate_is_replayed(
    topics: DeadLetterTopics,
) -> None:
    event = decision()
    topics.bury(letter(event, kind="unknown"), letter(decision("v2"), kind="unknown"))
    topics.settle(settled(step("e", occurred_at=event.occurred_at), decision_key("v1", "checkout", "b")))
    assert topics.replay() == counts(2, 2)
    kinds = {put.key: put.header("flagpost-replay-kind") for put in topics.replayed()}
    assert kinds == {b"v1": "visitor_metadata", b"v2": "unknown"}


def test_a_dead_letter_too_large_for_the_events_topic_does_not_stop_the_others(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topics = DeadLetterTopics(kafka, fresh_name("large"), max_message_bytes=20_000)
    large = step("large", "v1", properties={"text": os.urandom(15_000).hex()})
    small = [step(f"e{n}", f"v{n}") for n in range(150)]
    places = topics.bury(*map(letter, small[:50]), letter(large), *map(letter, small[50:]))
    result = topics.run("replay")
    assert result.exit_code == 0, result.output
    assert "150 of 151 dead letters were replayed" in result.stdout
    assert f"too large for the events topic: {places[50]}" in result.stdout
    assert len(topics.replayed()) == len({put.key for put in topics.replayed()}) == 150
    assert {marker.header("flagpost-replayed") for marker in topics.markers()} == {*places} - {places[50]}


def test_a_replay_that_begins_later_fences_the_one_before(topics: DeadLetterTopics) -> None:
    (place,) = topics.bury(letter(step("e1")))
    earlier = ReplayProducer(topics.kafka)
    earlier.open()
    assert topics.replay() == counts(1, 1)
    replay = Replay(
        place=Place.parse(place),
        source="events/0/7",
        kind="track",
        key=b"k",
        value=b"v",
        headers=(),
    )
    with pytest.raises(KafkaUnavailable, match=r"another replay of the group .* started after it"):
        earlier.replay([replay])
    assert len(topics.replayed()) == len(topics.markers()) == 1


def test_a_transaction_that_was_left_open_hides_nothing_from_the_next_replay(
    topics: DeadLetterTopics,
) -> None:
    """Its records were never committed; readers do not see the dead letters behind them until it ends."""
    producer = ReplayProducer(topics.kafka)
    producer.open()
    (first,) = topics.bury(letter(step("e1", "v1")))
    replay = Replay(
        place=Place.parse(first),
        source="events/0/7",
        kind="track",
        key=b"v1",
        value=b"v",
        headers=(),
    )
    producer._producer.begin_transaction()
    producer._produce(replay)
    producer._await_reports()
    topics.bury(letter(step("e2", "v1")))
    assert topics.replay() == counts(2, 2)
    assert len(topics.replayed()) == len(topics.markers()) == 2


def test_an_absent_kafka_ends_it_with_exit_code_1_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "OPEN_SECONDS", 0.5)
    result = run_dead_letters({"kafka.bootstrap_servers": "127.0.0.1:1"}, "replay", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: Kafka: 127.0.0.1:1: ")
    assert line.endswith("see kafka.bootstrap_servers and kafka.properties")


def test_a_missing_topic_is_reported_with_the_command_that_creates_it(topics: DeadLetterTopics) -> None:
    for command in (["list"], ["show", "0/0"], ["replay"]):
        result = topics.run(*command, kafka__dead_letter_topic="missing")
        assert result.exit_code == 1, result.output
        assert "missing" in result.stderr
        assert "flagpost topics create" in result.stderr


def test_a_registry_that_does_not_answer_ends_a_replay_and_not_a_show(topics: DeadLetterTopics) -> None:
    down = {"kafka__schema_registry__url": "http://127.0.0.1:1"}
    (place,) = topics.bury(letter(encode_confluent(step("e1"), 7)))
    result = topics.run("replay", **down)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the schema registry, which a value needs, does not answer" in result.stderr
    shown = topics.run("show", place, **down)
    assert shown.exit_code == 0, shown.output
    assert "value in base64, because " in shown.stdout
    assert topics.replayed() == []


def test_since_must_be_before_until(topics: DeadLetterTopics) -> None:
    result = topics.run("replay", "--since", "1h", "--until", "2h")
    assert result.exit_code == 2, result.output
    assert "--since is not before --until" in result.stderr


def test_before_everything_is_replayed_a_person_is_asked(
    topics: DeadLetterTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "at_a_terminal", lambda: True)
    topics.bury(letter(step("e1")), letter(step("e2")))
    refused = topics.run("replay")  # stdin is empty: no answer means no
    assert refused.exit_code == 1, refused.output
    assert "Replay everything: 2 dead letters of all reasons and times?" in refused.stderr
    assert topics.replayed() == []
    assert topics.run("replay", "--limit", "1").exit_code == 0
    assert topics.run("replay", "--yes").exit_code == 0
    assert len(topics.replayed()) == 2
