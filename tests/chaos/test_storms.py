"""Consumers, a broker and a Pendo that fail under load, and an oracle that finds nothing wrong.

`make chaos` runs the long form. The seed is printed; `CHAOS_SEED=… make chaos` repeats the traffic and the moments of
a run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from chaos.oracle import judge
from chaos.storm import INTERVAL_SECONDS, LONG, MAX_CONNECTIONS, SESSION_SECONDS, Stall, Storm
from deadlines import stretched
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.demo.pendo_stand_in import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    Endpoint,
    Fault,
    PendoStandIn,
    StandInConfig,
)
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import decode_settlements
from kafka_reading import Read, read_topic
from real_kafka.broker import KafkaBroker, OwnBroker
from running import total

KILLS = 20 if LONG else 3
FREEZES = 5 if LONG else 1
OUTAGE_SECONDS = 60.0 if LONG else 6.0
LONG_OUTAGE_SECONDS = 600.0 if LONG else 12.0
LATENCY_SECONDS = 0.02
FUTILE_REQUESTS = MAX_CONNECTIONS + 36
"""The most requests that an outage may cost a consumer per endpoint: those in flight, ten failures, and probes."""
FULL = "max.message.bytes"
"""With this set to 1, a topic answers every write with an error."""
FAULTS = {
    "503": Fault(status=503),
    "429": Fault(status=429),
    "hanging": HANG,
    "closing": CLOSE_BEFORE_RECORDING,
    "closing after it recorded": CLOSE_AFTER_RECORDING,
}
ROOM_FOR_MEMORY = 40 * 1024 * 1024

pytestmark = [pytest.mark.timeout(1800)]


@pytest.fixture
async def pendo() -> AsyncIterator[PendoStandIn]:
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as stand_in:
        # Without a schema, fields are sent under their configured names.
        stand_in.faults.outage(503, Endpoint.SCHEMA)
        stand_in.faults.latency_seconds = LATENCY_SECONDS
        yield stand_in


@pytest.fixture
def storm(kafka: KafkaBroker, pendo: PendoStandIn, fresh_name: Callable[[str], str]) -> Storm:
    return Storm(kafka, pendo, fresh_name("storm"))


@asynccontextmanager
async def under_load(storm: Storm) -> AsyncIterator[Storm]:
    """Run two consumers under traffic; at the end of the block wait until all of it is settled."""
    async with storm:
        await storm.start()
        await storm.start()
        await storm.share_the_work()
        storm.publish_on()
        await asyncio.sleep(1.0)
        yield storm
        await storm.publish_no_more()
        await storm.nothing_pending(60 + 2 * LONG_OUTAGE_SECONDS)


# Consumers


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_kill_9(storm: Storm, protocol: str) -> None:
    """A random consumer is killed at a random moment, several times."""
    storm.settings["kafka.group_protocol"] = protocol
    async with under_load(storm):
        for _ in range(KILLS):
            await asyncio.sleep(storm.random.uniform(0.5, SESSION_SECONDS + 2))
            await storm.kill(storm.random.choice(list(storm.consumers)))
            await storm.start()
    judge(storm)
    await asyncio.to_thread(check_that_a_loss_is_found, storm)


@pytest.mark.parametrize("protocol", ["classic", "consumer"] if LONG else ["classic"])
async def test_a_zombie_sends_nothing_out_of_turn(storm: Storm, protocol: str) -> None:
    """A consumer is frozen until the group has given its partitions to another one, and then continues."""
    storm.settings["kafka.group_protocol"] = protocol
    async with under_load(storm):
        for _ in range(FREEZES):
            frozen = storm.random.choice(list(storm.consumers))
            storm.freeze(frozen)
            await asyncio.sleep(SESSION_SECONDS + storm.random.uniform(2, 4))
            storm.thaw(frozen)
            await storm.share_the_work()
    judge(storm)


# Kafka


async def test_a_broker_that_is_killed_and_comes_back(
    kafka_broker: OwnBroker, pendo: PendoStandIn, fresh_name: Callable[[str], str]
) -> None:
    storm = Storm(kafka_broker, pendo, fresh_name("storm"))
    async with under_load(storm):
        for _ in range(3 if LONG else 1):
            kafka_broker.kill()
            await asyncio.sleep(storm.random.uniform(1, 5))
            await asyncio.to_thread(kafka_broker.restart)
            await asyncio.sleep(3)
    judge(storm, repeats_allowed=False)


async def test_a_kafka_that_stands_still(
    kafka_broker: OwnBroker, pendo: PendoStandIn, fresh_name: Callable[[str], str]
) -> None:
    """A frozen Kafka acknowledges nothing, so sending stops."""
    storm = Storm(kafka_broker, pendo, fresh_name("storm"))
    async with under_load(storm):
        kafka_broker.freeze()
        storm.note_trouble()
        sent = await storm.stopped_sending()
        await asyncio.sleep(OUTAGE_SECONDS)
        assert storm.deliveries_sent == sent, "sending has stopped"
        kafka_broker.thaw()
        await asyncio.sleep(SESSION_SECONDS)
        await storm.share_the_work()
    judge(storm)


async def test_a_ledger_that_takes_nothing(storm: Storm) -> None:
    """Kafka answers every write to the ledger with an error, as with a full disk: sending and commits stop."""
    storm.settings["decisions.visitor_metadata"] = (
        False  # one request may carry a thousand values: more than the bound below
    )
    async with under_load(storm):
        configure(storm, storm.ledger, FULL, "1")
        sent, committed = await storm.stopped_sending(), positions(storm)
        await asyncio.sleep(OUTAGE_SECONDS)
        assert storm.deliveries_sent == sent, "sending has stopped"
        assert positions(storm) == committed
        assert unacknowledged(storm) <= len(storm.consumers) * 3 * MAX_CONNECTIONS
        configure(storm, storm.ledger, FULL, None)
    judge(storm, repeats_allowed=False)


async def test_dead_letters_that_kafka_does_not_take(storm: Storm) -> None:
    """A dead letter that cannot be written holds back its offset; all other deliveries go on."""
    async with under_load(storm):
        configure(storm, storm.dead_letters, FULL, "1")
        await asyncio.sleep(1.0)
        storm.pendo.faults.visitor("visitor-0", 400)
        await asyncio.sleep(OUTAGE_SECONDS)
        assert sum(
            total(c.scrape(), "flagpost_deliveries_pending", kind="track") for c in storm.consumers.values()
        )
        configure(storm, storm.dead_letters, FULL, None)
    code, document = await asyncio.to_thread(storm.reconcile)
    assert code == 0
    assert document["totals"]["dead_lettered"] == 1
    (letter,) = storm.read_dead_letters(1)
    assert letter["headers"]["flagpost-reason"] == "rejected"


# Pendo


@pytest.mark.parametrize("fault", FAULTS if LONG else ["429", "hanging", "closing after it recorded"])
async def test_a_pendo_that_is_away(storm: Storm, fault: str) -> None:
    async with under_load(storm):
        await strike(storm, FAULTS[fault], OUTAGE_SECONDS)
    judge(storm, repeats_allowed=False)


async def test_a_pendo_that_is_away_for_long(storm: Storm) -> None:
    """Memory stays flat during the outage, and everything is delivered afterwards."""
    storm.rate = 60.0
    storm.settings["delivery.max_pending"] = 1000
    async with under_load(storm):
        outage = asyncio.ensure_future(strike(storm, Fault(status=503), LONG_OUTAGE_SECONDS))
        await asyncio.sleep(LONG_OUTAGE_SECONDS / 3)
        before = memory(storm)
        await outage
        after = memory(storm)
        print(f"memory of both consumers: {before / 1e6:.0f} MB, later {after / 1e6:.0f} MB")  # noqa: T201
        assert after <= before + ROOM_FOR_MEMORY
    judge(storm, repeats_allowed=False)


async def test_a_pendo_that_flaps(storm: Storm) -> None:
    async with under_load(storm):
        for _ in range(int(OUTAGE_SECONDS)):
            storm.pendo.faults.outage(storm.random.choice([500, 503, 429]), Endpoint.TRACK, Endpoint.METADATA)
            await asyncio.sleep(storm.random.uniform(0.1, 1.5))
            storm.pendo.faults.restore(Endpoint.TRACK, Endpoint.METADATA)
            await asyncio.sleep(storm.random.uniform(0.1, 0.5))
    judge(storm, repeats_allowed=False)


async def test_everything_at_once(storm: Storm) -> None:
    """Pendo fails at random in every way, consumers are killed and frozen, and the ledger stalls."""
    storm.pendo.faults.mix(
        storm.seed,
        [
            (0.02, 500),
            (0.02, 429),
            (0.005, HANG),
            (0.01, CLOSE_BEFORE_RECORDING),
            (0.01, CLOSE_AFTER_RECORDING),
        ],
    )
    async with under_load(storm):
        for _ in range(5 if LONG else 1):
            await storm.kill(storm.random.choice(list(storm.consumers)))
            await storm.start()
            began = time.monotonic()
            configure(storm, storm.ledger, FULL, "1")
            await asyncio.sleep(storm.random.uniform(0.5, 3))
            configure(storm, storm.ledger, FULL, None)
            storm.stalls.append(Stall(began, time.monotonic()))
            frozen = storm.random.choice(list(storm.consumers))
            storm.freeze(frozen)
            await asyncio.sleep(SESSION_SECONDS + storm.random.uniform(1, 3))
            storm.thaw(frozen)
            await asyncio.sleep(2)
        storm.pendo.faults.mix(0, [])
    judge(storm)


def check_that_a_loss_is_found(storm: Storm) -> None:
    """With one record removed from the ledger, reconcile reports what it settled as unexplained, and exits with 1.

    A consumer that was killed may have settled what its successor settles again; without one of the two nothing is
    unexplained. Nor is what the group has not committed, because the last consumers were killed too: that is pending.
    """
    records = [each for each in read_topic(storm.kafka.bootstrap_servers, storm.ledger) if each.value]
    times = Counter(settled for record in records for settled in settled_by(record))
    committed = positions(storm)
    missed = {s for s, count in times.items() if count == 1 and s[1] < committed[s[0]]}
    removed = storm.random.choice([record for record in records if settled_by(record) & missed])
    copy = f"{storm.ledger}-less-one"
    storm.kafka.create_topics(copy, partitions=storm.partitions)
    producer = Producer({"bootstrap.servers": storm.kafka.bootstrap_servers})
    for record in records:
        if record is not removed:
            producer.produce(copy, record.value, partition=record.partition)
    assert producer.flush(stretched(20)) == 0
    storm.settings["kafka.ledger_topic"] = copy
    code, document = storm.reconcile()
    print(f"one ledger record removed: {document['unexplained']} unexplained, exit {code}")  # noqa: T201
    assert code == 1
    assert document["unexplained"] == len(settled_by(removed) & missed)


def settled_by(record: Read) -> set[tuple[int, int, str]]:
    """The deliveries that a ledger record settles: their partition, offset and kind."""
    return {(record.partition, e.offset, e.kind) for e in decode_settlements(record.value or b"").entries}


async def strike(storm: Storm, fault: Fault, seconds: float) -> None:
    """Make all requests fail with a fault for some seconds; the outage must cost few requests."""
    faults, received = storm.pendo.faults, storm.pendo.received
    before = {endpoint: len(received.of(endpoint)) for endpoint in (Endpoint.TRACK, Endpoint.METADATA)}
    faults.outage(fault, *before)
    await asyncio.sleep(seconds)
    for endpoint, count in before.items():
        futile = len(received.of(endpoint)) - count
        print(f"{endpoint.value}: {futile} futile requests in {seconds:g} s")  # noqa: T201
        assert futile <= len(storm.consumers) * FUTILE_REQUESTS
    faults.restore(*before)


def configure(storm: Storm, topic: str, name: str, value: str | None) -> None:
    """Set an entry of a topic's configuration; None resets it to the default."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entry = ConfigEntry(name, value or "", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = storm.kafka.admin()
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(stretched(20))


def positions(storm: Storm) -> dict[int, int]:
    """The group's committed offset of each partition."""
    kafka = KafkaSettings(
        bootstrap_servers=storm.kafka.bootstrap_servers, group_id=str(storm.settings["kafka.group_id"])
    )
    with TopicReader(kafka) as reader:
        committed = reader.committed(storm.topic, dict.fromkeys(range(storm.partitions)))
    return {number: position.offset for number, position in committed.items()}


def unacknowledged(storm: Storm) -> float:
    return sum(consumer.value("flagpost_ledger_unacknowledged") for consumer in storm.consumers.values())


def memory(storm: Storm) -> int:
    """The resident memory of all consumers, in bytes."""
    return sum(psutil.Process(consumer.process_id).memory_info().rss for consumer in storm.consumers.values())
