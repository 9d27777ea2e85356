"""A storm: consumers under load while things go wrong, and notes of what was done to each of them.

In: a broker, a Pendo stand-in, a seed. Out: consumers that can be killed, frozen and started; traffic that continues
meanwhile; and notes for the oracle. The same seed draws the same traffic and the same moments.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, NamedTuple, Self

from confluent_kafka import Message, Producer

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_schemas import DecisionEvent, encode_single_object, new_event_id, partition_key
from real_kafka.broker import KafkaBroker
from running import RunningConsumer, is_caught_up, next_pause
from scenes import Scene

LONG = os.environ.get("CHAOS") == "long"
"""Whether to run the long form: `make chaos`."""

INTERVAL_SECONDS = 0.05
SESSION_SECONDS = 4.0
REQUEST_TIMEOUT_SECONDS = 1.5
MAX_CONNECTIONS = 16
VISITORS = 60
PRODUCER_REPLACED = "a Kafka client failed for good and is replaced; unacknowledged records are written again"
"""What a consumer logs."""
LOST_AFTER_SECONDS = 5 * SESSION_SECONDS
"""The latest that a consumer notices that it has lost its session, after it was frozen."""


def seed() -> int:
    """The seed of this run: CHAOS_SEED, or a new one."""
    return int(os.environ.get("CHAOS_SEED", "0")) or time.time_ns() % 1_000_000_000


class Stall(NamedTuple):
    """A time in which the ledger accepted nothing, in monotonic seconds."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Kill:
    """A moment that interrupted a consumer: its kill, its freeze, or the freeze of its broker."""

    sender: str
    at_seconds: float
    """In monotonic seconds, as the stand-in notes arrivals."""
    goes_on: bool = False
    """Whether its sender goes on until too much is unacknowledged: Kafka was interrupted, and not the sender."""

    def explains(self, lost: Kill) -> bool:
        """Whether its sender may have lost its session by this."""
        return self.sender == lost.sender and 0 < lost.at_seconds - self.at_seconds < LOST_AFTER_SECONDS


@dataclass(slots=True)
class Traffic:
    """What has been published: for each visitor one flag after the other, with some duplicates."""

    random: Random
    steps: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    unique: set[tuple[str, str]] = field(default_factory=set)
    """(visitor, flag) of the decisions that Kafka has acknowledged."""

    def next(self) -> DecisionEvent:
        """The next decision; about one in six is a duplicate of the visitor's last one."""
        visitor = f"visitor-{min(int(self.random.expovariate(0.08)), VISITORS - 1)}"
        step = self.steps.get(visitor, 0)
        if step == 0 or self.random.random() > 1 / 6:
            step += 1
        self.steps[visitor] = step
        return DecisionEvent(
            event_id=new_event_id(),
            occurred_at=time.time_ns() // 1_000_000,
            visitor_id=visitor,
            flag_key=f"step-{step:05}",
            enabled=True,
            variation_key="treatment",
            rule_key="rule",
            decision_event_dispatched=True,
        )


class Storm(Scene, AbstractAsyncContextManager["Storm"]):
    """The consumers of one group, and their traffic."""

    def __init__(
        self,
        kafka: KafkaBroker,
        pendo: PendoStandIn,
        name: str,
        *,
        partitions: int = 6,
        rate: float = 150.0,
        **settings: object,
    ) -> None:
        super().__init__(kafka, pendo, name, partitions)
        self.seed = seed()
        print(f"\n{name}: CHAOS_SEED={self.seed}")  # noqa: T201 - so that a run can be repeated
        self.random = Random(self.seed)
        self.traffic = Traffic(Random(self.seed))
        self.settings |= {
            "kafka.session_timeout_seconds": SESSION_SECONDS,
            "pendo.request_timeout_seconds": REQUEST_TIMEOUT_SECONDS,
            "pendo.max_connections": MAX_CONNECTIONS,
            "pendo.metadata_requests_per_minute": 100_000,
            "delivery.visitor_interval_seconds": INTERVAL_SECONDS,
            "delivery.max_pending_per_visitor": 0,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        self.consumers: dict[str, RunningConsumer] = {}
        """Those that live, by name."""
        self._all: dict[str, RunningConsumer] = {}
        self.kills: list[Kill] = []
        self.stalls: list[Stall] = []
        self._started = 0
        self.rate = rate
        self._publishing = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._publishing.clear()
        for consumer in self.consumers.values():
            consumer.__exit__(None, failure[1] if isinstance(failure[1], BaseException) else None, None)

    # Consumers

    async def start(self) -> str:
        """Start a consumer, and return its name, which is in the query of its track requests."""
        self._started += 1
        name = f"c{self._started}"
        url = f"{self.pendo.track_url}?by={name}"
        # The Pendo stand-in answers on this event loop: nothing may block it.
        consumer = await asyncio.to_thread(partial(self.consume, pendo__track_url=url))
        self.consumers[name] = self._all[name] = consumer
        return name

    def rebalances(self) -> list[str]:
        """What all consumers have logged of partitions that came and went, in order, at monotonic seconds."""
        lines = sorted(self._logged("assigned", "revoked", "lost"), key=lambda each: each[0])
        return [f"{at:.3f} {name} {line['event']} {line['partitions']}" for at, name, line in lines]

    def lost_sessions(self) -> list[Kill]:
        """When consumers lost their sessions without being frozen, as they may on a machine that is too busy."""
        lost = [Kill(name, at) for at, name, _ in self._logged("lost")]
        return [each for each in lost if not any(kill.explains(each) for kill in self.kills)]

    def has_replaced_a_producer(self) -> bool:
        """Whether a consumer's client for writing failed for good (docs/decisions/0030, 0045)."""
        return any(True for _ in self._logged(PRODUCER_REPLACED))

    def _logged(self, *events: str) -> Iterator[tuple[float, str, dict[str, Any]]]:
        """The lines of all consumers, dead ones too, of these events: monotonic seconds, consumer, line."""
        for name, consumer in self._all.items():
            for event in events:
                for line in consumer.logged(event):
                    yield _monotonic_seconds(line), name, line

    async def share_the_work(self) -> None:
        """Wait until the partitions are spread over all consumers, and restored."""
        await self._until(self._is_shared, 60, "all partitions are assigned and restored")

    def _is_shared(self) -> bool:
        assigned = [consumer.status()["assignment"] for consumer in self.consumers.values()]
        restored = all(partition["restored"] for each in assigned for partition in each)
        return restored and all(assigned) and sum(map(len, assigned)) == self.partitions

    async def kill(self, name: str) -> None:
        """Kill a consumer with SIGKILL."""
        consumer = self.consumers.pop(name)
        self.kills.append(Kill(name, time.monotonic()))
        consumer.signal(signal.SIGKILL)
        await asyncio.to_thread(consumer.__exit__, None, None, None)

    def freeze(self, name: str) -> None:
        """Freeze a consumer with SIGSTOP; `thaw` lets it continue."""
        self.kills.append(Kill(name, time.monotonic()))
        self.consumers[name].signal(signal.SIGSTOP)

    def note_trouble(self) -> None:
        """Note that Kafka was interrupted: what is in flight or unacknowledged may be sent again."""
        self.kills += [Kill(name, time.monotonic(), goes_on=True) for name in self.consumers]

    def thaw(self, name: str) -> None:
        """Let a frozen consumer continue, with SIGCONT."""
        self.consumers[name].signal(signal.SIGCONT)

    async def stopped_sending(self, seconds: float = 40.0) -> int:
        """Wait until Pendo gets no requests for 6 s, although traffic continues; returns how many it has got."""
        deadline, heard = time.monotonic() + stretched(seconds), -1
        while heard != self.deliveries_sent:
            assert time.monotonic() < deadline, f"Pendo is still sent requests after {stretched(seconds)} s"
            heard = self.deliveries_sent
            await asyncio.sleep(6.0)  # on a busy machine two seconds may pass without a request
        return heard

    @property
    def deliveries_sent(self) -> int:
        """The number of requests to Pendo, without those for its fields, which continue while nothing may be sent."""
        received = self.pendo.received
        return received.total - len(received.of(Endpoint.SCHEMA))

    async def nothing_pending(self, seconds: float = 120.0) -> None:
        """Wait until all that was published is settled and committed."""
        await self._until(self._is_done, seconds, "everything is settled")

    async def _until(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Check a condition again and again, outside of the event loop; raises AssertionError when time is up."""
        began = time.monotonic()
        while not await asyncio.to_thread(reached):
            waited = time.monotonic() - began
            if waited > stretched(seconds):
                states = {name: consumer.status() for name, consumer in self.consumers.items()}
                raise AssertionError(f"not in {stretched(seconds)} s: {what}; {states}")
            await asyncio.sleep(next_pause(waited, least=0.1, most=0.5))

    def _is_done(self) -> bool:
        return is_caught_up([consumer.scrape() for consumer in self.consumers.values()], self.partitions)

    # Traffic

    def publish_on(self) -> None:
        """Publish without end, until `publish_no_more`."""
        self._publishing.set()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    async def publish_no_more(self) -> None:
        """Stop publishing, and wait until Kafka has acknowledged everything."""
        self._publishing.clear()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 120)
            assert not self._thread.is_alive(), "Kafka does not take the events"

    def _publish(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        began, sent = time.monotonic(), 0
        while self._publishing.is_set():
            due = int((time.monotonic() - began) * self.rate)
            for _ in range(due - sent):
                self._produce(producer)
            sent = due
            producer.poll(0.01)
        assert producer.flush(stretched(100)) == 0

    def _produce(self, producer: Producer) -> None:
        event = self.traffic.next()

        def report(error: object, _: Message) -> None:
            assert error is None, error
            self.traffic.acknowledged += 1
            self.traffic.unique.add((event.visitor_id, event.flag_key))

        producer.produce(self.topic, encode_single_object(event), partition_key(event), on_delivery=report)


def _monotonic_seconds(line: dict[str, Any]) -> float:
    """When a line was logged."""
    at = datetime.fromisoformat(line["timestamp"]).timestamp()
    return at - time.time() + time.monotonic()
