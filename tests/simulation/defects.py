"""Defects that are planted in the product, to see whether the simulation finds them.

Each removes a fix that a decision or a guarantee describes. In: a defect, and the first seed to search. Out: the
product with the defect, during the block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka import commit_metadata
from flagpost_consumer.adapters.kafka.client_health import ClientHealth
from flagpost_consumer.adapters.kafka.group_silence import GroupSilence
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading
from flagpost_consumer.adapters.kafka.write_line import WriteLine
from flagpost_consumer.adapters.ledger import restore
from flagpost_consumer.adapters.ledger.restore import LedgerRestore
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.books.unacknowledged import Unacknowledged
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.pendo.endpoint import Endpoint
from flagpost_consumer.core.planning.suppressions import Suppressions
from flagpost_consumer.core.tracks import lanes
from flagpost_consumer.core.tracks.appetite import Appetite
from flagpost_consumer.core.tracks.lanes import Lanes
from flagpost_consumer.core.tracks.track_sending import TrackSending
from flagpost_consumer.service.kafka_calls import KafkaCalls
from flagpost_consumer.service.topic_changes import TopicChanges
from flagpost_kafka import reach


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect."""

    name: str
    told_in: str
    """The decision whose fix is removed, or the guarantee that is broken."""
    owner: object
    attribute: str
    instead: Any
    first_seed: int
    """The first seed to search: the defect was found at this seed, or soon after it."""
    finds: str
    """A part of the complaint's text."""
    kinds: tuple[str, ...] = ()
    """The only troubles that may come, if the defect needs several of them at once; empty: all may come."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The product has the defect during the block."""
        with patch.object(self.owner, self.attribute, self.instead):
            yield


def _with(method: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    """A method whose result is changed."""

    def changed(*arguments: Any, **named: Any) -> Any:
        return change(method(*arguments, **named))

    return changed


async def _lets_go_at_once(calls: KafkaCalls, partitions: list[int]) -> None:
    """Does not wait for requests in flight."""
    calls._loop.decoding.discard(partitions)
    calls._engine.revoke(partitions, clock())
    calls._loop.wake()
    await asyncio.sleep(0)


async def _waits_for_answers_alone(calls: KafkaCalls, partitions: list[int]) -> None:
    """Waits for requests in flight, and not until Kafka has their settlements."""
    await _lets_go_at_once(calls, partitions)
    await calls._wait(lambda: calls._engine.are_answered(partitions), calls._request_timeout_seconds)


def _rests_not(lanes: Any, lane: Any, now: float, _answered: Callable[..., Any] = Lanes.answered) -> None:
    """Sends a visitor's next request directly after an answer."""
    interval, lanes._interval = lanes._interval, 0.0
    _answered(lanes, lane, now)
    lanes._interval = interval


def _wants_never_again(appetite: Any, startable: int, now: float) -> bool:
    """Stops taking records for ever, once there were enough."""
    if startable >= appetite._enough:
        appetite._sated_at = now
    return appetite._sated_at is None


def _starts_where_it_went_back(
    reader: LedgerRestore,
    log_: Any,
    wanted: Any,
    *ids: Any,
    _start: Callable[..., Any] = LedgerRestore._start,
) -> Any:
    """Skips the uncommitted records below the offset that a log went back to."""
    start, gap, settles_from = _start(reader, log_, wanted, *ids)
    if wanted.went_back_to is not None:
        start = replace(start, offset=max(start.offset, wanted.went_back_to.offset))
    return start, gap, settles_from


def _begins_by_offset_alone(
    reader: LedgerRestore, *arguments: Any, _start: Callable[..., Any] = LedgerRestore._start
) -> Any:
    """Does not tell Kafka's client in which leader epoch the log was read up to the commit."""
    start, gap, settles_from = _start(reader, *arguments)
    return replace(start, leader_epoch=None), gap, settles_from


def _rejected_like_a_failure(endpoint: Endpoint, ticket: Any, now: float) -> None:
    """Lets the visitor whose probe was rejected probe again, after longer and longer pauses."""
    if endpoint._finish(ticket, now) and endpoint.is_down:
        endpoint._next_probe(now)


def _oldest_first(entry: tuple[float, int, Any]) -> tuple[int, float, int]:
    """Chooses the oldest delivery as the probe."""
    turn, number, lane = entry
    return lane.failures + lane.said_nothing, turn, number


def _may_always_send(engine: Engine, now: Any) -> bool:
    """Sends even when the group may have given the partitions to other members."""
    must_stop = engine._settling.unacknowledged.must_stop(
        2 * engine._policy.limits.max_connections, now.monotonic
    )
    return not must_stop and engine.knows_suppressions


DEFECTS = (
    Defect(
        "after a hand-over the member reads on where it was, and not where the stand-in came to",
        "0027",
        OwnedPartitions,
        "take_back",
        lambda partitions, _: partitions.displaced.clear(),
        11,
        "but nothing of the kind has happened",
        ("sluggish", "scale_up", "stop"),
    ),
    Defect(
        "answers that the ledger does not have stop nothing",
        "0014",
        Unacknowledged,
        "must_stop",
        lambda *_: False,
        14,
        "the ledger has not had the answer",
    ),
    Defect(
        "a commit does not say of which topic it speaks",
        "0026",
        restore,
        "read_metadata",
        _with(commit_metadata.read_metadata, lambda said: replace(said, topic_id=None)),
        45,
        "is not settled",
    ),
    Defect(
        "a member that the group does not answer waits for ever",
        "0033",
        GroupSilence,
        "is_silent",
        lambda *_: False,
        52,
        "is not settled",
    ),
    Defect(
        "after an answer the next request of the visitor starts at once, without its rest",
        "0036",
        Lanes,
        "answered",
        _rests_not,
        0,
        "apart",
    ),
    Defect(
        "who is suppressed later is not told to the engine",
        "0037",
        Suppressions,
        "take",
        lambda *_: None,
        3,
        "suppressed",
    ),
    Defect(
        "once enough is taken in nothing more is",
        "0038",
        Appetite,
        "wants",
        _wants_never_again,
        15,
        "is not settled",
    ),
    Defect(
        "requests go out though the group may have given the partitions away",
        "0008",
        Engine,
        "_may_send",
        _may_always_send,
        15,
        "apart",
    ),
    Defect(
        "a visitor whose probe was rejected probes again and again",
        "0012",
        Endpoint,
        "rejected",
        _rejected_like_a_failure,
        118,
        "is not settled",
        ("outage", "stop"),
    ),
    Defect(
        "of the deliveries that never failed the oldest probes",
        "0012",
        lanes,
        "_fitness",
        _oldest_first,
        51,
        "(track)",
        ("outage", "stop"),
    ),
    Defect(
        "intake pauses although only visitors that fail are in memory",
        "0012",
        TrackSending,
        "can_probe",
        property(lambda _: True),
        25,
        "is not settled",
        ("outage", "kill"),
    ),
    Defect(
        "what the ledger says is not taken in",
        "0009",
        Restoration,
        "take",
        lambda *_: 0,
        0,
        "told again",
    ),
    Defect(
        "a hand-over waits for nothing that is in flight",
        "guarantees: one visitor, one line",
        KafkaCalls,
        "_let_go",
        _lets_go_at_once,
        7,
        "told again",
    ),
    Defect(
        "a hand-over does not wait until Kafka has the settlements of what was answered",
        "guarantees: sent twice",
        KafkaCalls,
        "_let_go",
        _waits_for_answers_alone,
        3,
        "told again",
        ("leaderless", "scale_up", "slow"),
    ),
    Defect(
        "what Kafka refuses is forgotten",
        "guarantees: no loss",
        WriteLine,
        "hold",
        lambda *_: None,
        16,
        "is not settled",
    ),
    Defect(
        "a log that went back is read from there, whatever was not committed",
        "0026",
        LedgerRestore,
        "_start",
        _starts_where_it_went_back,
        3,
        "is not settled",
        ("go_back", "outage"),
    ),
    Defect(
        "what the ledger settles is taken for the records that have these offsets now",
        "0026",
        PartitionReading,
        "is_of_another_log",
        lambda *_: False,
        3,
        "is not settled",
        ("go_back", "kill", "forget_answers"),
    ),
    Defect(
        "a log that goes back again before it is read anew is not noticed",
        "0026",
        LedgerRestore,
        "_start",
        _begins_by_offset_alone,
        39,
        "is not settled",
        ("go_back", "slow"),
    ),
    Defect(
        "a topic's id that is told late is not compared with the one that was assumed",
        "0026",
        TopicChanges,
        "compare",
        lambda *_: None,
        3,
        "is not settled",
        ("made_anew", "hide_ids", "kill", "stop"),
    ),
    Defect(
        "what the ledger settles without a topic's id is taken for the present topic's",
        "0026",
        Restoration,
        "disown",
        lambda *_: None,
        68,
        "is not settled",
        ("made_anew", "hide_ids", "kill"),
    ),
    Defect(
        "a producer that has lost its brokers is compared with no other",
        "0045",
        reach,
        "is_cut_off",
        lambda *_: False,
        0,
        "is not settled",
        ("lose_brokers",),
    ),
    Defect(
        "the group's client that has lost its brokers is itself asked whether Kafka answers",
        "0045",
        ClientHealth,
        "_missing_for_a_new_client",
        lambda _: "Kafka does not answer",
        3,
        "is not settled",
        ("lose_brokers",),
    ),
)
