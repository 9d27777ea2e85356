"""`flagpost plan --calibrate`: what work costs on this machine.

In: nothing but the machine. Out: costs, fitted to trials of the real consumer at full load, at low load and idle.
What can only be measured together, an event and the turns of the event loop that it shares with others, is told apart
by how many turns the plan makes of the same load.
"""

from __future__ import annotations

import gc
import os
import platform
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median

from flagpost_consumer import __version__
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Record
from flagpost_consumer.core.restoration import Restoration
from flagpost_consumer.core.sent_values import Sent, SentValues, field_key, id_key, json_digest
from flagpost_consumer.operator.planning.costs import SHIPPED, Calibration, Costs
from flagpost_consumer.operator.planning.measured_service import Took
from flagpost_consumer.operator.planning.pod import START_MS, Pendo
from flagpost_consumer.operator.planning.traffic import Decisions, Load, Visitors
from flagpost_consumer.operator.planning.trial import PARTITIONS, Trial, planned, trial_ground
from flagpost_schemas import Decoder, encode_single_object

TRACKS_ONLY = {"FLAGPOST_DECISIONS__VISITOR_METADATA": "false"}
NEW_VISITORS = 10_000_000_000
"""Of so many, hardly one comes twice."""
FEW_VISITORS = 100
LOW_SECONDS = 6.0
LOW_RATE = 100.0
IDLE_SECONDS = 3.0
FITTING_ROUNDS = 2
CLAIMS = 100_000
VALUES = 50_000
PENDING = 10_000


def _backlog(name: str, visitors: int, count: int, settings: Mapping[str, str]) -> Trial:
    return Trial(name, Load(0.0, visitors, 0.0, 1, PARTITIONS, count), settings=settings)


DELIVERED = _backlog("delivered", NEW_VISITORS, 15_000, TRACKS_ONLY)
DUPLICATES = _backlog("duplicates", FEW_VISITORS, 20_000, TRACKS_ONLY)
METADATA = _backlog("metadata", NEW_VISITORS, 10_000, {})
UNCHANGED = _backlog("unchanged", FEW_VISITORS, 15_000, {})
LOW = Trial("low", Load(LOW_RATE, NEW_VISITORS, 0.0, 1, PARTITIONS), LOW_SECONDS, 50.0, TRACKS_ONLY)
IDLE = Trial("idle", Load(0.0, 1, 0.0, 1, PARTITIONS), IDLE_SECONDS, settings=TRACKS_ONLY)
ROUNDS = (DELIVERED, DUPLICATES, METADATA, UNCHANGED, LOW, IDLE, DELIVERED, DUPLICATES, DELIVERED)
"""Each in turn, and what the others are told apart by three times."""

Watched = Callable[[tuple[Trial, ...]], Iterator[Trial]]


def calibrate(watched: Watched) -> Calibration:
    """Measure; `watched` shows how far it is. Raises EmbeddedKafkaError or MeasuredServiceError where that fails."""
    took: dict[str, list[tuple[Took, Pendo]]] = {}
    with trial_ground([DELIVERED, DUPLICATES, METADATA, UNCHANGED, LOW, IDLE]) as ground:
        for trial in watched(ROUNDS):
            took.setdefault(trial.name, []).append(ground.run(trial))
    figures = _figures(took)
    return Calibration(
        costs=fitted(figures, {name: rounds[0][1] for name, rounds in took.items()}),
        machine=this_machine(),
        version=__version__,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        figures=figures,
    )


def _figures(took: Mapping[str, list[tuple[Took, Pendo]]]) -> dict[str, float]:
    """CPU microseconds of a settlement by trial, and what else was measured."""
    figures = {
        f"{name}_us": median(1e6 * each.cpu_seconds / each.settlements for each, _ in rounds)
        for name, rounds in took.items()
        if name != IDLE.name
    }
    idle = took[IDLE.name][0][0]
    figures["idle_us_per_second"] = 1e6 * idle.cpu_seconds / idle.seconds
    figures["delivered_per_second"] = median(
        each.settlements / each.seconds for each, _ in took[DELIVERED.name]
    )
    figures["loop_share"] = median(each.seconds / each.cpu_seconds for each, _ in took[DELIVERED.name])
    return {
        **figures,
        "base_bytes": float(idle.peak_bytes),
        "claim_bytes": claim_bytes(),
        "pending_bytes": pending_bytes(),
        "sent_value_bytes": sent_value_bytes(),
    }


def fitted(figures: Mapping[str, float], pendo: Mapping[str, Pendo]) -> Costs:
    """The costs by which the plan of each trial takes the CPU that the trial took."""
    costs = SHIPPED.costs.model_copy(
        update={
            "idle_us_per_second": figures["idle_us_per_second"],
            "loop_share": figures["loop_share"],
            **{
                name: figures[name]
                for name in ("base_bytes", "claim_bytes", "pending_bytes", "sent_value_bytes")
            },
        }
    )
    for _ in range(FITTING_ROUNDS):
        costs = costs.model_copy(update=_better(costs, figures, pendo))
    return costs


def _better(costs: Costs, figures: Mapping[str, float], pendo: Mapping[str, Pendo]) -> dict[str, float]:
    """Costs that fit the turns which the plan makes with the costs before."""
    turns = {
        trial.name: planned(trial, costs, pendo[trial.name]).turns
        for trial in (DELIVERED, DUPLICATES, METADATA, UNCHANGED, LOW)
    }
    low_us = figures["low_us"] - costs.idle_us_per_second / LOW_RATE
    turn = max(0.0, low_us - figures["delivered_us"]) / (turns["low"] - turns["delivered"])

    def without_turns(name: str, deliveries: int = 1) -> float:
        """What a record of a trial takes besides."""
        return max(0.0, deliveries * (figures[f"{name}_us"] - turn * turns[name]))

    delivered, record = without_turns("delivered"), without_turns("duplicates")
    return {
        "turn_us": turn,
        "record_us": record,
        "request_us": max(0.0, delivered - record),
        "metadata_sent_us": max(0.0, without_turns("metadata", 2) - delivered),
        "metadata_unsent_us": max(0.0, without_turns("unchanged", 2) - record),
    }


# Memory


def _bytes_of(make: Callable[[], object], count: int) -> float:
    """What each of so many things takes that `make` makes."""
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
    """What a remembered decision takes."""
    random = Random(1)  # noqa: S311 - no secret

    def make() -> Dedupe:
        dedupe = Dedupe(1800.0, CLAIMS, DedupeCounts())
        for number in range(CLAIMS):
            dedupe.claim(random.randbytes(16), START_MS + number, number)
        return dedupe

    return _bytes_of(make, CLAIMS)


def sent_value_bytes() -> float:
    """What a remembered metadata value takes, of visitors with one each."""
    field, digest = field_key("custom", "field"), json_digest(b"1")

    def make() -> SentValues:
        sent = SentValues(1_800_000, VALUES)
        for number in range(VALUES):
            value = Sent(field, START_MS + number, number, digest)
            sent.remember(0, id_key("visitor", str(number)), value)
        return sent

    return _bytes_of(make, VALUES)


def pending_bytes() -> float:
    """What a record takes that waits for Pendo, its metadata too."""
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
    """The machine in a line, as people tell them apart."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
