"""`flagpost explain` as a process, on a real Kafka, after a real consumer has run, with the Pendo stand-in."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine_world import decision
from flagpost_consumer.core.planning.ledger_ids import LedgerIds
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.demo.pendo_stand_in import HANG, Endpoint, Kind
from flagpost_schemas import AccountMetadata, Gap, TrackEvent, encode_single_object
from ledger_writing import History, entry
from scenes import Scene
from traffic import produce

pytestmark = pytest.mark.kafka

VISITOR = "v-1"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


async def explained(history: History, *arguments: str, code: int = 0, **settings: object) -> dict[str, Any]:
    """Run `explain --json` in a thread, because Pendo answers on this loop; returns the document."""
    done = await asyncio.to_thread(history.run, "explain", *arguments, "--json", **settings)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


async def page(history: History, *arguments: str, code: int = 0, **settings: object) -> str:
    done = await asyncio.to_thread(history.run, "explain", *arguments, **settings)
    assert (done.returncode, done.stderr) == (code, ""), (done.returncode, done.stdout, done.stderr)
    return done.stdout


def ended(document: dict[str, Any]) -> dict[str, list[tuple[str, str, str | None]]]:
    """Kind, state and reason of each delivery, by event id."""
    return {
        record["event_id"]: [(each["kind"], each["state"], each["reason"]) for each in record["deliveries"]]
        for record in document["records"]
    }


def delivery(document: dict[str, Any], event_id: str, kind: str = "track") -> dict[str, Any]:
    (record,) = [each for each in document["records"] if each["event_id"] == event_id]
    (found,) = [each for each in record["deliveries"] if each["kind"] == kind]
    return dict(found)


async def test_each_settlement_is_shown_with_its_reason_and_what_pendo_has(history: History) -> None:
    scene, now = history.scene, wall_ms()
    scene.pendo.faults.visitor(VISITOR, 503, 200, 422, afterwards=200)
    scene.publish(
        [
            decision(VISITOR, "checkout", "b", occurred_at=now, event_id="first"),
            decision(VISITOR, "checkout", "b", occurred_at=now + 1, event_id="again"),
            decision(VISITOR, "search", "a", occurred_at=now + 2, event_id="refused"),
            decision(
                VISITOR, "denied", "a", occurred_at=now + 3, event_id="denied", consent={"analytics": False}
            ),
            decision("another", "checkout", "b", occurred_at=now, event_id="not asked for"),
        ]
    )
    with scene.consume() as consumer:  # at the pace that the stand-in requires
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    document = await explained(history, VISITOR)
    assert document["visitor"] == VISITOR
    assert document["partitions_read"] == [partition_of(VISITOR.encode(), scene.partitions)]
    ends = ended(document)
    assert {event_id: found[0] for event_id, found in ends.items()} == {
        "first": ("track", "delivered", "ok"),
        "again": ("track", "duplicate", "dedupe"),
        "refused": ("track", "dead_lettered", "rejected"),
        "denied": ("track", "dropped", "no_consent"),
    }
    # The second value of a field may arrive before the first one is sent, or after.
    values = ("visitor_metadata", "duplicate", "superseded"), ("visitor_metadata", "delivered", "ok")
    assert {ends["first"][1], ends["again"][1]} <= {*values, ("visitor_metadata", "duplicate", "unchanged")}
    assert ends["denied"][1] == ("visitor_metadata", "dropped", "no_consent")
    first, refused = delivery(document, "first"), delivery(document, "refused")
    assert (first["attempts"], first["status"]) == (2, 200)
    (record,) = [each for each in document["records"] if each["event_id"] == "first"]
    assert delivery(document, "again")["duplicate_of"] == record["offset"]
    assert refused["status"] == 422
    assert "422" in refused["detail"]
    assert refused["dead_letter"].startswith(f"{document['partition']}/")
    assert delivery(document, "denied")["detail"] == "consent to analytics is denied"
    fields = {each["name"]: each for each in document["pendo"]["fields"]}
    assert fields["[Optimizely] checkout"]["verdict"] == "same"
    assert fields["[Optimizely] denied"]["verdict"] == "not_sent"

    one = await explained(history, VISITOR, "--event-id", "refused")
    assert list(ended(one)) == ["refused"]
    shown = await page(history, VISITOR)
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    for text in (
        "decision checkout = b",
        "2 attempts",
        "rejected: ",
        "no_consent: consent to analytics is denied",
    ):
        assert text in shown
    assert "4 records, deliveries: 3 delivered, 2 duplicate, 2 dropped, 1 dead_lettered" in shown


async def test_a_differing_value_at_pendo_is_shown(history: History) -> None:
    scene, now = history.scene, wall_ms()
    (published,) = scene.publish([decision("ü/1 %", "checkout", "b", occurred_at=now, event_id="e")])
    history.settle([published])
    history.commit_all()
    unknown = await explained(history, "ü/1 %")
    assert unknown["pendo"]["known"] is False
    assert "Pendo does not know this visitor" in await page(history, "ü/1 %")
    scene.pendo.metadata.add(Kind.VISITOR, "ü/1 %")
    empty = await explained(history, "ü/1 %")
    (field,) = empty["pendo"]["fields"]
    assert (field["has_value"], field["verdict"], field["sent"]) == (False, "different", "b")
    scene.pendo.faults.outage(503, Endpoint.DETAILS)
    silent = await explained(history, "ü/1 %")
    assert "503" in silent["pendo"]["error"]
    del scene.settings["pendo.integration_key"]
    without = await explained(history, "ü/1 %")
    assert without["pendo"] is None


async def test_what_waits_is_shown_with_why_and_until_when(history: History) -> None:
    scene, now = history.scene, wall_ms()
    scene.pendo.faults.visitor(VISITOR, HANG, afterwards=HANG)
    scene.publish([decision(VISITOR, flag, "b", occurred_at=now, event_id=flag) for flag in ("one", "two")])
    unread = await explained(history, VISITOR)
    assert delivery(unread, "one")["waits"]["cause"] == "no_consumer"
    with scene.consume(delivery__visitor_interval_seconds=2.0) as consumer:
        await scene.pendo.received.until(lambda: bool(scene.pendo.received.of_visitor(VISITOR)), 30)
        waiting = await explained(history, VISITOR, "--admin", consumer.admin_url)
        assert waiting["consumers"] == [consumer.admin_url]
        home = waiting["partition"]
        (held,) = [each for each in consumer.status()["assignment"] if each["partition"] == home]
        assert held["position"] == 2
        waits = [delivery(waiting, flag)["waits"] for flag in ("one", "two")]
        assert [each["cause"] for each in waits] == ["turn", "pace"]
        assert all(each["expires_at"] == now + 600_000_000 for each in waits)
        far = await explained(history, VISITOR, "--admin", "http://127.0.0.1:9")
        assert delivery(far, "one")["waits"]["cause"] == "unknown"
        nobody = await asyncio.to_thread(history.run, "explain", VISITOR, "--admin", "http://127.0.0.1:9")
        assert nobody.stderr == "--admin http://127.0.0.1:9/status: it cannot be reached\n"
        shown = await page(history, VISITOR, "--admin", consumer.admin_url)
        assert "pace: at most one track request per visitor every 1 s, in order" in " ".join(shown.split()), (
            shown
        )


@pytest.mark.kafka_core
async def test_nothing_found_says_what_to_look_at(history: History) -> None:
    shown = await page(history, "nobody", code=1)
    assert "--all-partitions" in shown
    assert "--account" in shown
    document = await explained(history, "nobody", code=1)
    assert document["records"] == []


async def test_records_on_a_wrong_partition_are_found_where_they_are_asked_for(history: History) -> None:
    scene = history.scene
    home = partition_of(VISITOR.encode(), scene.partitions)
    wrong = (home + 1) % scene.partitions
    event = decision(VISITOR, "checkout", "b", occurred_at=wall_ms(), event_id="astray")
    produce(
        scene.kafka.bootstrap_servers,
        scene.topic,
        VISITOR.encode(),
        encode_single_object(event),
        partition=wrong,
    )
    assert (await explained(history, VISITOR, code=1))["records"] == []
    document = await explained(history, VISITOR, "--all-partitions")
    (record,) = document["records"]
    assert (record["partition"], record["mispartitioned"], record["event_id"]) == (wrong, True, "astray")
    shown = " ".join((await page(history, VISITOR, "--all-partitions")).split())
    assert f"MISPARTITIONED: the key belongs on partition {home}" in shown


async def test_a_ledger_of_hashes_is_read_with_its_key(history: History, tmp_path: Path) -> None:
    scene = history.scene
    key_file = tmp_path / "key"
    key_file.write_text("a key of the ledger, long enough for anybody")
    ids = LedgerIds(hashlib.blake2b(key_file.read_bytes()).digest())
    old, new = scene.publish(
        [decision(VISITOR, f, "b", occurred_at=wall_ms(), event_id=f) for f in ("plain", "keyed")]
    )
    other_key = LedgerIds(b"another key, which is lost")
    history.write(old.partition, [entry(old.offset, visitor_id=VISITOR, event_id="plain")])
    history.write(new.partition, [entry(new.offset, visitor_id=ids.of(VISITOR), event_id="keyed")])
    metadata = [
        entry(each.offset, "visitor_metadata", visitor_id=other_key.of(VISITOR)) for each in (old, new)
    ]
    history.write(old.partition, metadata)
    history.commit_all()
    document = await explained(
        history, VISITOR, privacy__ledger_ids="keyed_hash", privacy__key_file=str(key_file)
    )
    both = [("track", "delivered", "ok"), ("visitor_metadata", "delivered", "ok")]
    assert ended(document) == {"plain": both, "keyed": both}


async def test_accounts_anonymous_visitors_and_undecodable_bytes_are_found(history: History) -> None:
    scene, now = history.scene, wall_ms()
    account, anonymous = scene.publish(
        [
            AccountMetadata(event_id="m", occurred_at=now, account_id="acme", values={"plan": "pro"}),
            TrackEvent(event_id="t", occurred_at=now, anonymous_id="cookie", event="Clicked"),
        ]
    )
    history.write(account.partition, [entry(account.offset, "account_metadata", account_id="acme")])
    history.write(anonymous.partition, [entry(anonymous.offset, "track", "dropped", reason="no_visitor_id")])
    home = partition_of(VISITOR.encode(), scene.partitions)
    produce(scene.kafka.bootstrap_servers, scene.topic, VISITOR.encode(), b"no event", partition=home)
    history.write(
        home, [entry(0, "unknown", "dead_lettered", reason="undecodable")] * (home != anonymous.partition)
    )
    history.commit_all()
    scene.pendo.metadata.add(Kind.ACCOUNT, "acme")
    found = await explained(history, "acme", "--account")
    assert ended(found) == {"m": [("account_metadata", "delivered", "ok")]}
    assert found["pendo"]["known"] is True
    assert ended(await explained(history, "cookie")) == {"t": [("track", "dropped", "no_visitor_id")]}
    (broken,) = (await explained(history, VISITOR))["records"]
    assert "c3 01" in broken["unreadable"]
    assert [each["kind"] for each in broken["deliveries"]] == ["unknown"]


async def test_what_nobody_settled_is_unexplained_unless_it_was_lost(history: History) -> None:
    scene = history.scene
    missing, lost = scene.publish(
        [decision(VISITOR, flag, "b", occurred_at=wall_ms(), event_id=flag) for flag in ("missing", "lost")]
    )
    history.write(lost.partition, [], [Gap(from_offset=lost.offset, to_offset=lost.offset + 1)])
    history.commit_all()
    document = await explained(history, VISITOR)
    assert {each["state"] for each in document["records"][0]["deliveries"]} == {"unexplained"}
    assert {each["state"] for each in document["records"][1]["deliveries"]} == {"lost"}
    assert missing.partition == lost.partition


async def test_a_suppressed_visitor_is_reported(history: History) -> None:
    scene = history.scene
    scene.kafka.create_topics(scene.suppressions, partitions=1, config={"cleanup.policy": "compact"})
    done = await asyncio.to_thread(history.run, "suppress", VISITOR)
    assert done.returncode == 0, done.stderr
    (published,) = scene.publish([decision(VISITOR, "f", "b", occurred_at=wall_ms(), event_id="e")])
    for kind in ("track", "visitor_metadata"):
        history.write(published.partition, [entry(published.offset, kind, "dropped", reason="suppressed")])
    history.commit_all()
    document = await explained(history, VISITOR)
    assert document["suppressed"] is True
    assert ended(document)["e"][0] == ("track", "dropped", "suppressed")
    assert "suppressed: consumers drop" in await page(history, VISITOR)


async def test_the_window_begins_where_it_is_requested(history: History) -> None:
    scene = history.scene
    home = partition_of(VISITOR.encode(), scene.partitions)
    for age_ms, event_id in ((7_200_000, "old"), (1_000, "new")):
        event = decision(VISITOR, "f", "b", occurred_at=wall_ms() - age_ms, event_id=event_id)
        produce(
            scene.kafka.bootstrap_servers,
            scene.topic,
            VISITOR.encode(),
            encode_single_object(event),
            partition=home,
            timestamp=wall_ms() - age_ms,
        )
    assert list(ended(await explained(history, VISITOR))) == ["old", "new"]
    assert list(ended(await explained(history, VISITOR, "--since", "1h"))) == ["new"]


async def test_a_partition_without_a_ledger_partition_has_pending_deliveries(history: History) -> None:
    scene = history.scene
    small = f"{scene.ledger}-small"
    scene.kafka.create_topics(small, partitions=1)
    visitor = next(f"v{n}" for n in range(99) if partition_of(f"v{n}".encode(), scene.partitions) == 3)
    scene.publish([decision(visitor, "f", "b", occurred_at=wall_ms(), event_id="e")])
    for arguments in ((), ("--since", "1h")):
        document = await explained(history, visitor, *arguments, kafka__ledger_topic=small)
        assert ended(document)["e"][0] == ("track", "pending", None)


async def test_the_ledger_explains_what_kafka_no_longer_has(history: History) -> None:
    scene = history.scene
    (published,) = scene.publish([decision(VISITOR, "f", "b", occurred_at=wall_ms(), event_id="gone")])
    history.write(
        published.partition,
        [entry(published.offset, visitor_id=VISITOR, event_id="gone", flag_key="f", variation_key="b")],
    )
    history.commit_all()
    history.delete_before(scene.topic, published.partition, published.offset + 1)
    document = await explained(history, VISITOR)
    assert ended(document) == {"gone": [("track", "delivered", "ok")]}
    assert "Kafka no longer has the record" in await page(history, VISITOR)


async def test_a_topic_that_is_not_there_is_reported_in_one_line(history: History) -> None:
    done = await asyncio.to_thread(history.run, "explain", VISITOR, kafka__topic="nowhere")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nowhere" in done.stderr
