"""A load on the real consumer: an embedded Kafka, a sink, and what the consumer needs.

In: a load, settings, a latency. Out: the measured result of the real consumer, and the plan's prediction. Calibration
fits the costs to such trials, and benchmarks/plan.py compares the two.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer

from flagpost_consumer.commands.plan.costs import Costs, Work
from flagpost_consumer.commands.plan.measured import Took
from flagpost_consumer.commands.plan.pod import START_MS, Pendo, Pod
from flagpost_consumer.commands.plan.sink import probing, running_sink
from flagpost_consumer.commands.plan.traffic import Decisions, Load, Visitors
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.settings import Needs, Settings, engine_policy, load_settings
from flagpost_schemas import DecisionEvent, encode_single_object

PARTITIONS = 4
LEDGER = "flagpost.ledger"


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial: decisions that wait when the consumer starts, or that arrive while it runs."""

    name: str
    load: Load
    seconds: float = 0.0
    """How long decisions arrive; 0: only those of the backlog."""
    latency_ms: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment."""

    @property
    def environ(self) -> dict[str, str]:
        """The settings of the consumer, without the addresses of Kafka and Pendo."""
        return {
            "FLAGPOST_KAFKA__TOPIC": self.name,
            "FLAGPOST_KAFKA__LEDGER_TOPIC": LEDGER,
            "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "FLAGPOST_KAFKA__PROPERTIES": json.dumps({"fetch.wait.max.ms": 20}),
            "FLAGPOST_PENDO__TRACK_SECRET": "secret",
            "FLAGPOST_PENDO__INTEGRATION_KEY": "secret",
            "FLAGPOST_ADMIN__HOST": "127.0.0.1",
            "FLAGPOST_ADMIN__PORT": "0",
            "FLAGPOST_LOG__LEVEL": "error",
            **self.settings,
        }

    @property
    def policy(self) -> Policy:
        """The settings by which the engine decides."""
        return engine_policy(self._settings)

    @property
    def decodes_all(self) -> bool:
        """Whether duplicates are decoded too."""
        return bool(self._settings.metrics.flags)

    @property
    def _settings(self) -> Settings:
        return load_settings(None, self.environ, Needs.KAFKA | Needs.PENDO)

    def measured(self, decisions: int) -> tuple[int, int]:
        """The numbers of the settlements at which the measurement of so many decisions begins and ends.

        If decisions arrive while the consumer runs, these are a half and fifteen sixteenths of all: what arrived
        before Kafka's client read its partitions comes in a burst, and the last ones may wait for their visitors'
        pace.
        """
        settlements = decisions * (2 if self.policy.decisions.visitor_metadata else 1)
        return (settlements // 2, settlements * 15 // 16) if self.seconds else (1, settlements)

    def decisions(self, start_ms: int) -> list[Decisions]:
        """The decisions of each partition, if the trial begins at a moment (epoch ms)."""
        visitors = Visitors(self.load)
        return [
            Decisions(self.load, visitors, number, seed=1, start_ms=start_ms)
            for number in range(self.load.partitions)
        ]


class Done(NamedTuple):
    """A trial's result in the plan."""

    per_second: float
    """Deliveries settled, duplicates among them."""
    cpu_us: float
    """Of the process, for each of them."""
    work: Mapping[Work, float]
    """Units of each, for each of them."""


def planned(trial: Trial, costs: Costs, pendo: Pendo) -> Done:
    """Plan a trial; like the real one, it begins with an empty memory."""
    pod = Pod(
        trial.policy,
        costs,
        pendo,
        trial.decisions(START_MS),
        trial.load.partitions,
        Random(1),  # noqa: S311 - no secret
        decodes_all=trial.decodes_all,
    )
    pod.begin({})
    begin, end = trial.measured(sum(1 for _ in _until(trial)))
    pod.run_until_settled(begin)
    counted, before = pod.counted, deepcopy(pod.counted)
    pod.run_until_settled(end)
    settled = counted.settlements - before.settlements
    seconds = counted.last_settled_at - before.last_settled_at
    cpu_seconds = counted.cpu_seconds - before.cpu_seconds + costs.idle_us_per_second / 1e6 * seconds
    return Done(
        settled / seconds,
        1e6 * cpu_seconds / settled,
        {work: (counted.work[work] - before.work[work]) / settled for work in Work},
    )


class TrialGround:
    """An embedded Kafka for trials."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self._kafka = kafka
        self._published: dict[str, int] = {}
        """How many decisions wait on a topic."""
        self._groups = count()

    def run(self, trial: Trial) -> tuple[Took, Pendo]:
        """Run a trial; returns the consumer's cost, and the sink's response time meanwhile."""
        if not trial.seconds:
            return self._try(trial, self._kafka.bootstrap_servers)
        # A new group reads from the beginning: records of an earlier trial must not be read again.
        with EmbeddedKafka(_topics([trial])) as fresh:
            return self._try(trial, fresh.bootstrap_servers)

    def _try(self, trial: Trial, servers: str) -> tuple[Took, Pendo]:
        if not trial.seconds and trial.name not in self._published:
            self._published[trial.name] = self._publish(trial, servers)
        with running_sink(trial.latency_ms) as port, probing(port) as probes:
            took = self._run(trial, port, servers)
        return took, probes.during(took.began_at, took.seconds)

    def _run(self, trial: Trial, port: int, servers: str) -> Took:
        from flagpost_consumer.commands.plan.measured_service import run_service  # noqa: PLC0415 - the service

        environ = {
            **trial.environ,
            "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": servers,
            "FLAGPOST_KAFKA__GROUP_ID": f"trial-{next(self._groups)}",
            "FLAGPOST_PENDO__TRACK_URL": f"http://127.0.0.1:{port}/data/track",
            "FLAGPOST_PENDO__API_URL": f"http://127.0.0.1:{port}",
        }
        if not trial.load.decisions_per_second and not trial.load.backlog:
            return run_service(environ, idle_seconds=trial.seconds)
        publish = partial(self._publish, trial, servers) if trial.seconds else None
        decisions = sum(1 for _ in _until(trial)) if trial.seconds else self._published[trial.name]
        begin, end = trial.measured(decisions)
        return run_service(environ, settlements=end, measured_from=begin, when_ready=publish)

    def _publish(self, trial: Trial, servers: str) -> int:
        """Publish the decisions of a trial: those of a backlog at once, the others as they arrive."""
        producer = Producer({"bootstrap.servers": servers})
        began = time.monotonic()
        published = 0
        for at, partition, event in _until(trial):
            # It returns as soon as anything is acknowledged.
            while (left := began + at - time.monotonic()) > 0:
                producer.poll(left)
            producer.poll(0)
            producer.produce(
                trial.name, encode_single_object(event), event.visitor_id.encode(), partition=partition
            )
            published += 1
        producer.flush()
        return published


def _until(trial: Trial) -> Iterator[tuple[float, int, DecisionEvent]]:
    """The decisions of a trial, with when they come and their partition, in order."""
    partitions = trial.decisions(time.time_ns() // 1_000_000)
    to_come = [(each.next_at, each.partition) for each in partitions]
    heapq.heapify(to_come)
    while to_come[0][0] <= trial.seconds:
        at, number = to_come[0]
        yield at, number, partitions[number].take()
        heapq.heapreplace(to_come, (partitions[number].next_at, number))


@contextmanager
def trial_ground(trials: Iterable[Trial]) -> Iterator[TrialGround]:
    """Provide a Kafka with a topic for each trial."""
    with EmbeddedKafka(_topics(trials)) as kafka:
        yield TrialGround(kafka)


def _topics(trials: Iterable[Trial]) -> dict[str, int]:
    topics = {trial.name: trial.load.partitions for trial in trials}
    return {**topics, LEDGER: max(topics.values())}
