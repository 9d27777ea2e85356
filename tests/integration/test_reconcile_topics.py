"""`flagpost reconcile` on a real Kafka: what is read, what is left out, what is found."""

from __future__ import annotations

import time

import orjson
import pytest
from confluent_kafka import TopicCollection

from deadlines import stretched
from engine_world import decision
from flagpost_schemas import Gap, TrackEvent, encode_single_object
from ledger_writing import History, entry
from scenes import Scene

COUNTS = {
    "published": 0, "delivered": 0, "duplicate": 0, "dropped": 0, "dead_lettered": 0, "replayed": 0,
    "sent_again": 0, "pending": 0, "unexplained": 0,
}  # fmt: skip
REASONS = {"duplicate": "dedupe", "dropped": "no_consent", "dead_lettered": "rejected"}
"""The reason with which `History` settles each outcome."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def counts(**given: int) -> dict[str, object]:
    reasons = {reason: given[outcome] for outcome, reason in REASONS.items() if given.get(outcome)}
    return {**COUNTS, **given, "reasons": reasons}


def track(visitor: str) -> TrackEvent:
    return TrackEvent(event_id=f"e-{visitor}", occurred_at=now_ms(), visitor_id=visitor, event="Clicked")


@pytest.fixture
def history(scene: Scene) -> History:
    found = History(scene)
    scene.kafka.await_leaders(scene.topic, found.ledger, scene.dead_letters)
    return found


def test_the_document_is_that_of_the_contract(history: History) -> None:
    begin = now_ms()
    decisions = history.scene.publish(
        [decision(f"v{n}", "checkout", "treatment", occurred_at=now_ms()) for n in range(4)]
    )
    plain = history.scene.publish([track("v9")])
    history.settle(decisions[:2])
    history.settle(decisions[2:3], "duplicate")
    history.settle(plain, "dropped", "track")
    found = history.reconcile()
    window = found.pop("window")
    assert begin - 1000 <= window["since"] <= now_ms()
    assert window["since"] <= window["until"] <= now_ms()
    assert found == {
        "rows": [
            {
                "flag_key": "checkout",
                "variation_key": "treatment",
                **counts(published=4, delivered=2, duplicate=1, pending=1),
                "visitors": {
                    "decided": 4,
                    "delivered": 2,
                    "lost": 2,
                    "by_reason": {"pending": 1, "dedupe": 1},
                },
            }
        ],
        "other": counts(published=1, dropped=1),
        "totals": counts(published=5, delivered=2, duplicate=1, dropped=1, pending=1),
        "metadata": counts(published=4, delivered=2, duplicate=1, pending=1),
        "lost_offsets": 0,
        "unexplained": 0,
        "sample_ratio": [],
        "warnings": [],
    }


def test_what_is_below_the_commit_and_in_no_ledger_is_unexplained(history: History) -> None:
    published = history.scene.publish([decision(f"v{n}", "checkout", "on") for n in range(6)])
    history.settle(published[:5])
    history.commit_all()
    found = history.reconcile_here(code=1)
    assert found["unexplained"] == 2
    shown = history.run("reconcile")
    assert shown.returncode == 1
    missing = published[5]
    assert f"{missing.partition}/{missing.offset}/track" in shown.stdout
    assert "docs/reconcile.md" in shown.stdout
    assert " ".join(shown.stdout.split()).endswith(
        "12 deliveries were published: 10 are delivered, 0 are duplicates, 0 dropped, 0 dead-lettered "
        "(0 of them replayed), 0 pending, 2 unexplained."
    )


def test_settlements_of_another_group_or_topic_or_damaged_ones_explain_nothing(history: History) -> None:
    (published,) = history.scene.publish([track("v")])
    place = published.partition
    history.write(place, [entry(published.offset)], group="another")
    history.write(place, [entry(published.offset)], topic_id="AAAAAAAAAAEAAAAAAAAAAg")
    history.put(history.ledger, place, b"\xc3\x01damaged")
    history.put(history.ledger, place, None)
    history.commit_all()
    found = history.reconcile_here(code=1)
    assert found["other"] == counts(published=1, unexplained=1)
    (warning,) = found["warnings"]
    assert "2 records of the ledger cannot be read" in warning


def test_settlements_that_name_this_very_topic_count(history: History) -> None:
    (published,) = history.scene.publish([track("v")])
    topic = history.scene.topic
    admin = history.scene.kafka.admin()
    described = admin.describe_topics(TopicCollection([topic]))
    history.write(
        published.partition,
        [entry(published.offset)],
        topic_id=str(described[topic].result(stretched(20)).topic_id),
    )
    assert history.reconcile_here()["other"] == counts(published=1, delivered=1)


def test_a_zombies_settlement_counts_once_and_shows_as_sent_again(history: History) -> None:
    (published,) = history.scene.publish([track("v")])
    history.write(published.partition, [entry(published.offset, "track", "dead_lettered", reason="rejected")])
    history.write(published.partition, [entry(published.offset), entry(published.offset)])
    assert history.reconcile_here()["other"] == counts(published=1, delivered=1, sent_again=1)


@pytest.mark.kafka_core
def test_records_that_nobody_can_decode_are_other_and_of_kind_unknown(history: History) -> None:
    offset = history.put(history.scene.topic, 2, b"no avro")
    history.put(history.scene.topic, 2, None)
    history.write(2, [entry(offset, "unknown", "dead_lettered", reason="undecodable")])
    assert history.reconcile_here()["other"] == {
        **counts(published=2, dead_lettered=1, pending=1),
        "reasons": {"undecodable": 1},
    }


def test_a_schema_id_without_a_registry_is_unknown(history: History) -> None:
    offset = history.put(history.scene.topic, 0, b"\x00\x00\x00\x00\x07body")
    history.write(0, [entry(offset, "unknown", "dead_lettered", reason="unknown_schema")])
    assert history.reconcile_here()["other"] == {
        **counts(published=1, dead_lettered=1),
        "reasons": {"unknown_schema": 1},
    }


def test_a_registry_that_does_not_answer_ends_it_in_a_line(history: History) -> None:
    history.put(history.scene.topic, 0, b"\x00\x00\x00\x00\x07body")
    done = history.run("reconcile", "--json", kafka__schema_registry__url="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "Error: the schema registry, which a record needs, does not answer: http://"
    )


def test_a_replayed_dead_letter_is_a_new_delivery_and_the_old_one_says_so(history: History) -> None:
    scene = history.scene
    event = decision("v", "checkout", "on", occurred_at=now_ms())
    (dead,) = scene.publish([event])
    history.settle([dead], "dead_lettered", "track")
    history.settle([dead], "delivered", "visitor_metadata")
    source = f"{scene.topic}/{dead.partition}/{dead.offset}"
    headers = [("flagpost-source", source), ("flagpost-kind", "track"), ("flagpost-reason", "rejected"),
               ("flagpost-attempts", "1"), ("flagpost-at", "1"), ("flagpost-detail", "")]  # fmt: skip
    letter = history.put(scene.dead_letters, dead.partition, encode_single_object(event), headers)
    history.put(scene.dead_letters, dead.partition, encode_single_object(event), headers)  # not replayed
    replay = [("flagpost-replay-of", source), ("flagpost-replay-kind", "track")]
    again = history.put(scene.topic, dead.partition, encode_single_object(event), replay)
    history.put(
        scene.dead_letters, dead.partition, None, [("flagpost-replayed", f"{dead.partition}/{letter}")]
    )
    history.write(dead.partition, [entry(again)])
    history.commit_all()
    found = history.reconcile_here()
    assert found["totals"] == counts(published=2, delivered=1, dead_lettered=1, replayed=1)
    assert found["metadata"] == counts(published=1, delivered=1)


def test_a_gap_in_the_ledger_is_lost_however_often_it_was_written(history: History) -> None:
    history.write(1, [], [Gap(from_offset=10, to_offset=15)])
    history.write(1, [], [Gap(from_offset=12, to_offset=17), Gap(from_offset=30, to_offset=31)])
    history.write(3, [], [Gap(from_offset=10, to_offset=11)])
    assert history.reconcile_here(code=1)["lost_offsets"] == 9
    shown = " ".join(history.run("reconcile").stdout.split())
    assert "9 offsets were lost before the group read them" in shown


def test_a_gap_counts_in_the_window_in_which_it_was_noticed(history: History) -> None:
    history.write(1, [], [Gap(from_offset=1, to_offset=3)], settled_at=now_ms() - 7_200_000)
    assert history.reconcile_here(code=1)["lost_offsets"] == 2
    assert history.reconcile_here("--since", "1h")["lost_offsets"] == 0
    assert history.reconcile_here("--since", "3h", "--until", "1h", code=1)["lost_offsets"] == 2


def test_a_commit_below_what_kafka_still_has_is_lost_before_the_group_notices(history: History) -> None:
    published = [history.scene.publish([track("v")])[0] for _ in range(5)]
    place = published[0].partition
    history.settle(published[:2], "delivered", "track")
    history.commit({place: 2})
    history.delete_before(history.scene.topic, place, 4)
    found = history.reconcile_here(code=1)
    assert (found["lost_offsets"], found["unexplained"]) == (2, 0)
    assert found["other"] == counts(published=1, pending=1)


def test_what_the_ledger_no_longer_covers_is_cut_off_and_reported(history: History) -> None:
    day = 86_400_000
    now = now_ms()
    value = encode_single_object(track("v"))
    topic, ledger = history.scene.topic, history.ledger
    for days_ago in (5, 4, 3, 2):
        offset = history.put(topic, 0, value, timestamp_ms=now - days_ago * day)
        history.write(0, [entry(offset)], timestamp_ms=now - days_ago * day + 60_000)
    history.commit_all()
    assert history.reconcile_here()["other"] == counts(published=4, delivered=4)
    history.delete_before(ledger, 0, 2)
    found = history.reconcile_here()
    window = found["window"]
    assert found["other"] == counts(published=1, delivered=1)
    assert window["cut_offsets"] == 3
    assert now - 3 * day < window["since"] < now - 2 * day
    (warning,) = found["warnings"]
    assert warning.startswith("The ledger no longer covers 3 offsets of the window")
    inside = history.reconcile_here("--since", "60h")
    assert (inside["other"], inside["warnings"]) == (counts(published=1, delivered=1), [])


def test_a_ledger_of_which_nothing_is_left_covers_nothing_that_was_committed(history: History) -> None:
    published = [history.scene.publish([track("v")])[0] for _ in range(3)]
    place = published[0].partition
    history.settle(published[:2], "delivered", "track")
    history.commit({place: 2})
    history.delete_before(history.ledger, place, 1)
    found = history.reconcile_here()
    assert found["other"] == counts(published=1, pending=1)
    assert found["window"]["cut_offsets"] == 2


@pytest.mark.kafka_core
def test_windows_that_follow_one_another_share_nothing_and_leave_nothing_out(history: History) -> None:
    value = encode_single_object(track("v"))
    now, minute = now_ms(), 60_000
    # Publishers' clocks differ: timestamps do not rise from record to record.
    for minutes_ago in (50, 40, 45, 30, 20, 25, 10):
        offset = history.put(history.scene.topic, 0, value, timestamp_ms=now - minutes_ago * minute)
        history.write(0, [entry(offset)], timestamp_ms=now - minutes_ago * minute)
    before = history.reconcile_here("--until", "22m")["totals"]
    after = history.reconcile_here("--since", "22m")["totals"]
    assert before["published"] + after["published"] == 7
    assert (before["delivered"], after["delivered"]) == (before["published"], after["published"])


def test_an_empty_window_is_zero_and_adds_up(history: History) -> None:
    found = history.reconcile_here()
    assert found["totals"] == counts()
    assert found["window"]["since"] is None


def test_a_window_that_ends_before_it_begins_is_refused(history: History) -> None:
    done = history.run("reconcile", "--since", "1h", "--until", "2h")
    assert done.returncode == 2
    assert "--since is not before --until" in done.stderr


def test_a_topic_that_does_not_exist_is_reported_in_one_line(history: History) -> None:
    done = history.run("reconcile", kafka__ledger_topic="nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "flagpost topics create" in done.stderr


def test_a_skewed_split_is_reported_and_does_not_fail(history: History) -> None:
    decisions = [decision(f"a{n}", "checkout", "a", rule_type="experiment") for n in range(60)]
    decisions += [decision(f"b{n}", "checkout", "b", rule_type="experiment") for n in range(20)]
    decisions += [decision(f"b{n}", "checkout", "a", rule_type="experiment") for n in range(5)]
    decisions += [decision(f"r{n}", "checkout", "on", rule_type="delivery") for n in range(30)]
    published = history.scene.publish(decisions)
    history.settle(published)
    found = history.reconcile_here()
    (ratio,) = found["sample_ratio"]
    assert ratio["variations"] == {"a": 60, "b": 20}
    assert ratio["expected"] == {"a": 40.0, "b": 40.0}
    assert ratio["skewed"] is True
    assert ratio["p_value"] < 0.01
    assert "--expect checkout=a:SHARE,b:SHARE" in found["warnings"][0]
    meant = history.reconcile_here("--expect", "checkout=a:75,b:25")
    assert (meant["warnings"], meant["sample_ratio"][0]["p_value"]) == ([], 1.0)
    unknown = history.run("reconcile", "--json", "--expect", "nosuch=a:1,b:1")
    # Before the fix, it was silently ignored.
    assert unknown.stderr == "--expect nosuch: not compared, the window has no experiment of this flag\n"
    assert orjson.loads(unknown.stdout)["sample_ratio"] == found["sample_ratio"]
