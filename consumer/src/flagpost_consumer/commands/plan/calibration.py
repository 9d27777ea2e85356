"""`flagpost plan --calibrate`: measures what work costs on this machine.

In: only the machine. Out: costs, fitted to trials of the real consumer at full load, at low load and idle. An event,
and the event-loop turns that it shares with others, can only be measured together; they are separated by the work
that the plan counts for the same load.
"""

from __future__ import annotations

import gc
import os
import platform
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median

from flagpost_consumer import __version__
from flagpost_consumer.commands.plan.costs import SHIPPED, Calibration, Costs, Work
from flagpost_consumer.commands.plan.measured import Took
from flagpost_consumer.commands.plan.pod import START_MS, Pendo
from flagpost_consumer.commands.plan.traffic import Decisions, Load, Visitors
from flagpost_consumer.commands.plan.trial import PARTITIONS, Done, Trial, planned, trial_ground
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.sent_values import (
    Sent,
    SentValues,
    field_key,
    id_key,
    json_digest,
    value_key,
)
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Record
from flagpost_schemas import Decoder, encode_single_object

TRACKS_ONLY = {"FLAGPOST_DECISIONS__VISITOR_METADATA": "false"}
ORDER_ALONE = {
    "FLAGPOST_DELIVERY__VISITOR_INTERVAL_SECONDS": "0",
    "FLAGPOST_DELIVERY__MAX_PENDING_PER_VISITOR": "0",
    "FLAGPOST_DEDUPE__TTL_SECONDS": "0",
}
"""Every decision is sent, in each visitor's order, as fast as that allows."""
NEW_VISITORS = 10_000_000_000
"""Among so many visitors hardly one comes twice."""
FEW_VISITORS = 20
MANY_VISITORS = 2_000
"""Their duplicates find little of one another in the processor's caches, as in a real topic."""
LOW_SECONDS = 6.0
LOW_RATE = 100.0
IDLE_SECONDS = 3.0
FITTING_ROUNDS = 2
SOLVING_ROUNDS = 20
CLAIMS = 100_000
VALUES = 50_000
PENDING = 10_000


def _backlog(name: str, visitors: int, count: int, settings: Mapping[str, str]) -> Trial:
    return Trial(name, Load(0.0, visitors, 0.0, 1, PARTITIONS, count), settings=settings)


DELIVERED = _backlog("delivered", NEW_VISITORS, 15_000, TRACKS_ONLY)
DUPLICATES = _backlog("duplicates", MANY_VISITORS, 60_000, TRACKS_ONLY)
METADATA = _backlog("metadata", NEW_VISITORS, 10_000, {})
UNCHANGED = _backlog("unchanged", FEW_VISITORS, 15_000, {})
LOW = Trial("low", Load(LOW_RATE, NEW_VISITORS, 0.0, 1, PARTITIONS), LOW_SECONDS, 50.0, TRACKS_ONLY)
IDLE = Trial("idle", Load(0.0, 1, 0.0, 1, PARTITIONS), IDLE_SECONDS, settings=TRACKS_ONLY)
DECODED = _backlog(
    "decoded", MANY_VISITORS, 30_000, {**TRACKS_ONLY, "FLAGPOST_METRICS__FLAGS": '["another"]'}
)
"""Duplicates too, but none is recognised by its bytes."""
SPREAD = replace(
    _backlog("spread", 4, 3_000, {**TRACKS_ONLY, **ORDER_ALONE}),
    latency_ms=5.0,
)
"""Answers come one by one, and fast: all events are of a few visitors, whose order they keep."""
SHOWN_BY = {
    Work.REQUEST: DELIVERED,
    Work.TURN: SPREAD,
    Work.EXCHANGE: LOW,
    Work.RECORD: DECODED,
    Work.DUPLICATE: DUPLICATES,
    Work.METADATA_SENT: METADATA,
    Work.METADATA_UNSENT: UNCHANGED,
}
"""The trial in which each cost matters most."""
TRIALS = (*SHOWN_BY.values(), IDLE)
ROUNDS = (*TRIALS, DELIVERED, SPREAD, DECODED, DUPLICATES, LOW, IDLE, DELIVERED, SPREAD, LOW, IDLE)
"""All of them in turn; those that separate the others, and those that vary most, are repeated."""

Measured = Mapping[str, Sequence[tuple[Took, Pendo]]]
"""Trials by name, each of which ran once or more: what it took, and how the sink answered meanwhile."""
Watched = Callable[[tuple[Trial, ...]], Iterator[Trial]]


def calibrate(watched: Watched) -> Calibration:
    """Measure; `watched` shows the progress. Raises EmbeddedKafkaError or MeasuredServiceError."""
    measured: dict[str, list[tuple[Took, Pendo]]] = {}
    with trial_ground(TRIALS) as ground:
        for trial in watched(ROUNDS):
            measured.setdefault(trial.name, []).append(ground.run(trial))
    return calibration_of(measured)


def calibration_of(measured: Measured) -> Calibration:
    """The costs that fit trials which were measured; each of `TRIALS` must be among them."""
    figures = _figures({trial.name: measured[trial.name] for trial in TRIALS})
    return Calibration(
        costs=fitted(figures, {name: _pendo_of(rounds) for name, rounds in measured.items()}),
        machine=this_machine(),
        version=__version__,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        figures=figures,
    )


def _pendo_of(rounds: Sequence[tuple[Took, Pendo]]) -> Pendo:
    """How the sink answered in a usual round."""
    return Pendo(
        median(pendo.latency_seconds for _, pendo in rounds),
        median(pendo.jitter_seconds for _, pendo in rounds),
    )


def _figures(took: Measured) -> dict[str, float]:
    """CPU microseconds of a settlement for each trial, beyond an idle process, and the other measurements."""
    idle = [each for each, _ in took[IDLE.name]]
    idle_us = median(1e6 * each.cpu_seconds / each.seconds for each in idle)
    figures = {
        f"{name}_us": median(
            (1e6 * each.cpu_seconds - idle_us * each.seconds) / each.settlements for each, _ in rounds
        )
        for name, rounds in took.items()
        if name != IDLE.name
    }
    figures["idle_us_per_second"] = idle_us
    figures["delivered_per_second"] = median(
        each.settlements / each.seconds for each, _ in took[DELIVERED.name]
    )
    figures["loop_share"] = median(each.seconds / each.cpu_seconds for each, _ in took[DELIVERED.name])
    return {
        **figures,
        "base_bytes": median(float(each.peak_bytes) for each in idle),
        "claim_bytes": claim_bytes(),
        "pending_bytes": pending_bytes(),
        "sent_value_bytes": sent_value_bytes(),
    }


def fitted(figures: Mapping[str, float], pendo: Mapping[str, Pendo]) -> Costs:
    """The costs with which the plan of each trial needs the CPU that the trial needed."""
    measured = (
        "idle_us_per_second",
        "loop_share",
        "base_bytes",
        "claim_bytes",
        "pending_bytes",
        "sent_value_bytes",
    )
    costs = SHIPPED.costs.model_copy(update={name: figures[name] for name in measured})
    for _ in range(FITTING_ROUNDS):
        done = {trial.name: planned(trial, costs, pendo[trial.name]) for trial in TRIALS if trial != IDLE}
        costs = costs.model_copy(update=_costs_by(done, figures))
    return costs


def _costs_by(done: Mapping[str, Done], figures: Mapping[str, float]) -> dict[str, float]:
    """Costs that fit the work of the plan, by the names in `Costs` (the Gauss-Seidel method)."""
    costs = dict.fromkeys(Work, 0.0)
    for _ in range(SOLVING_ROUNDS):
        for cost, trial in SHOWN_BY.items():
            units = done[trial.name].work
            others = sum(costs[other] * units[other] for other in Work if other is not cost)
            if units[cost]:
                costs[cost] = max(0.0, figures[f"{trial.name}_us"] - others) / units[cost]
    return {cost.value: microseconds for cost, microseconds in costs.items()}


# Memory


def _bytes_of(make: Callable[[], object], count: int) -> float:
    """The bytes of each of `count` things that `make` makes."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del made
    return size / count


def claim_bytes() -> float:
    """The bytes of a remembered decision."""
    random = Random(1)  # noqa: S311 - no secret

    def make() -> Dedupe:
        dedupe = Dedupe(1800.0, CLAIMS, DedupeCounts())
        for number in range(CLAIMS):
            dedupe.claim(random.randbytes(16), START_MS + number, number)
        return dedupe

    return _bytes_of(make, CLAIMS)


def sent_value_bytes() -> float:
    """The bytes of a remembered metadata value, for visitors with one each."""
    field, digest = field_key("custom", "field"), json_digest(b"1")

    def make() -> SentValues:
        sent = SentValues(1_800_000, VALUES)
        for number in range(VALUES):
            key = value_key(id_key("visitor", str(number)), field)
            sent.remember(0, key, Sent(START_MS + number, number, digest))
        return sent

    return _bytes_of(make, VALUES)


def pending_bytes() -> float:
    """The bytes of a record that waits for Pendo, including its metadata."""
    load = Load(1000.0, NEW_VISITORS, 0.0, 1, 1)
    decisions = Decisions(load, Visitors(load), 0, seed=1, start_ms=START_MS)
    values = [encode_single_object(decisions.take()) for _ in range(PENDING)]

    def make() -> Engine:
        engine, now, decoder = Engine(Policy(), Random(1).random), Instant(0.0, START_MS), Decoder()  # noqa: S311
        (partition,) = engine.assign([0], 1, now)
        engine.restore(partition, Restoration(0, Policy().dedupe))
        for offset, value in enumerate(values):
            event = decoder.decode(bytes(bytearray(value)))
            key = getattr(event, "visitor_id", "").encode()
            engine.receive([Record(0, offset, START_MS, key, bytes(bytearray(value)), (), event)], now)
        return engine

    return _bytes_of(make, PENDING)


def this_machine() -> str:
    """A description of the machine in a line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
