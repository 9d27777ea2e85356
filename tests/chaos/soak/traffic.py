"""The soak's publishers, each in a thread of its own: plain, transactional, and Flagpost's own Publisher.

In: rates, and extra records to publish. Out: records in Kafka. A record counts as published only when it can be read
from the topic.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from confluent_kafka import KafkaException, Producer

from chaos.soak.events import (
    PARTITIONS,
    Group,
    Step,
    action,
    decision,
    now_ms,
    plan,
)
from flagpost_consumer.adapters.kafka.config import RECEIVE_BYTES
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_publisher import Publisher
from flagpost_schemas import Event, encode_confluent, encode_single_object, partition_key
from real_kafka.broker import KafkaBroker

STEADY_PER_SECOND = 25.0
PLANS_PER_SECOND = 2.0
SERVICE_PER_SECOND = 5.0
TRANSACTIONS_PER_SECOND = 1.0
EVENTS_PER_TRANSACTION = 4
ABORTED_SHARE = 0.25
REGISTRY_PER_SECOND = 1.0
POISON_PER_SECOND = 0.8
REPEATED_SHARE = 1 / 8
IDS_IN_USE = 20
"""After this many records in Confluent's format the next schema id is used, which no consumer has asked for yet."""
FLUSH_SECONDS = 120.0
CALL_SECONDS = 5.0
TRANSACTION_SECONDS = 10.0
TICK_SECONDS = 0.02
MAX_BATCH_BYTES = RECEIVE_BYTES // 3
"""The limit of a batch. librdkafka may not find the decompressed size of a larger batch, and the consumer then skips
it as a gap, by design; there may be healthy events in it.
"""
LARGEST_BOMB_BYTES = MAX_BATCH_BYTES - 10_000
"""A bomb of this size fits into a batch."""

Record = tuple[bytes, bytes]


class Traffic:
    """All that is published."""

    def __init__(self, kafka: KafkaBroker, topic: str, random: Random) -> None:
        self._kafka = kafka
        self._topic = topic
        self._random = random
        self._steps: dict[str, int] = defaultdict(int)
        self._visitors = {group: group.visitors() for group in Group}
        self._thrown: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._on = threading.Event()
        self._lull = threading.Event()
        self._schema_ids = 0
        self._publisher_errors: list[Exception] = []
        self.service = Publisher(
            bootstrap_servers=kafka.users_bootstrap_servers,
            topic=topic,
            service="soak",
            properties={**kafka.user_properties, "log_level": 0},
            on_error=self._publisher_errors.append,
        )
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    # What happens to traffic

    def start(self) -> None:
        """Publish until `stop`."""
        self._on.set()
        for work in (self._publish_plain, self._publish_transactions, self._publish_as_service):
            self._threads.append(threading.Thread(target=self._guarded, args=(work,), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop; returns when Kafka has everything that the plain and transactional producers accepted."""
        self._on.clear()
        for thread in self._threads:
            thread.join(2 * FLUSH_SECONDS)
            assert not thread.is_alive(), "Kafka does not take the events"
        self._threads.clear()
        assert not self.failures, self.failures
        self.service.flush(FLUSH_SECONDS)

    @contextmanager
    def only_the_sick(self) -> Iterator[None]:
        """Publish none of the regular events of healthy visitors during the block."""
        self._lull.set()
        try:
            yield
        finally:
            self._lull.clear()

    def throw_in(self, records: list[Record]) -> None:
        """Queue keyed records, which are published soon and unchanged."""
        for record in records:
            self._thrown.put(record)

    def step(self, visitor: str) -> Step:
        """A visitor's next step."""
        self._steps[visitor] += 1
        return visitor, self._steps[visitor]

    def visitors(self, group: Group) -> list[str]:
        """The visitors of a group."""
        return self._visitors[group]

    # Publishers

    def _guarded(self, work: Callable[[Random], None]) -> None:
        try:
            work(Random(self._random.random()))
        except BaseException as error:  # noqa: BLE001 - `stop` reports it
            self.failures.append(error)

    def _producer(self, **properties: object) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._kafka.bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "zstd",
                # Bombs are large before they are compressed; a batch stays below what a consumer accepts.
                "message.max.bytes": MAX_BATCH_BYTES,
                "batch.size": MAX_BATCH_BYTES,
                "log_level": 0,
                **properties,
            }
        )

    def _publish_plain(self, random: Random) -> None:
        producer = self._producer(**{"message.timeout.ms": 0})
        streams = [
            (STEADY_PER_SECOND, self._steady),
            (PLANS_PER_SECOND, self._plan),
            (REGISTRY_PER_SECOND, self._registered),
            (POISON_PER_SECOND, self._poison),
        ]
        began, made = time.monotonic(), [0] * len(streams)
        while self._on.is_set():
            for number, (rate, make) in enumerate(streams):
                due = int((time.monotonic() - began) * rate)
                for _ in range(due - made[number]):
                    self._produce(producer, make(random))
                made[number] = due
            while not self._thrown.empty():
                self._produce(producer, self._thrown.get())
            producer.poll(TICK_SECONDS)
        assert producer.flush(FLUSH_SECONDS) == 0, "Kafka does not take the events"

    def _produce(self, producer: Producer, record: Record | None) -> None:
        if record is None:
            return
        key, value = record
        producer.produce(self._topic, value, key, partition=partition_of(key, PARTITIONS))

    def _steady(self, random: Random) -> Record | None:
        visitor = random.choice(self._visitors[Group.STEADY])
        return None if self._lull.is_set() else self._step_record(visitor, random)

    def _poison(self, random: Random) -> Record:
        return self._step_record(random.choice(self._visitors[Group.POISON]), random)

    def _plan(self, random: Random) -> Record | None:
        if self._lull.is_set():
            return None
        visitor = random.choice(self._visitors[Group.STEADY])
        self._steps[f"plan of {visitor}"] += 1
        event = plan(visitor, self._steps[f"plan of {visitor}"])
        return _key(event), encode_single_object(event)

    def _registered(self, random: Random) -> Record | None:
        if self._lull.is_set():
            return None
        self._schema_ids += 1
        event = action(*self.step(random.choice(self._visitors[Group.REGISTRY])))
        return _key(event), encode_confluent(event, 1 + self._schema_ids // IDS_IN_USE)

    def _step_record(self, visitor: str, random: Random) -> Record:
        """The visitor's next step, or a duplicate of its last one."""
        if not self._steps[visitor] or random.random() > REPEATED_SHARE:
            self.step(visitor)
        step = self._steps[visitor]
        event = decision(visitor, step) if step % 2 else action(visitor, step)
        return _key(event), encode_single_object(event)

    def _publish_as_service(self, random: Random) -> None:
        while self._on.wait(0):
            time.sleep(1 / SERVICE_PER_SECOND)
            if not self._lull.is_set():
                visitor, step = self.step(random.choice(self._visitors[Group.SERVICE]))
                self.service.track(visitor, "Soaked", {"step": step}, occurred_at=now_ms())

    def _publish_transactions(self, random: Random) -> None:
        while self._on.is_set():
            try:
                self._run_transactions(random)
            except KafkaException:
                time.sleep(1.0)  # a producer that lost its broker, or its topic, is replaced

    def _run_transactions(self, random: Random) -> None:
        producer = self._producer(
            **{
                "transactional.id": f"{self._topic}-soak",
                "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
                "message.timeout.ms": int(TRANSACTION_SECONDS * 1000),
            }
        )
        producer.init_transactions(TRANSACTION_SECONDS)
        while self._on.is_set():
            time.sleep(1 / TRANSACTIONS_PER_SECOND)
            if self._lull.is_set():
                continue
            producer.begin_transaction()
            for _ in range(EVENTS_PER_TRANSACTION):
                self._produce(producer, self._transaction_record(random))
            if random.random() < ABORTED_SHARE:
                producer.abort_transaction(TRANSACTION_SECONDS)
            else:
                producer.commit_transaction(TRANSACTION_SECONDS)

    def _transaction_record(self, random: Random) -> Record:
        event = action(*self.step(random.choice(self._visitors[Group.TRANSACTION])))
        return _key(event), encode_single_object(event)


def _key(event: Event) -> bytes:
    key = partition_key(event)
    assert key is not None
    return key
