"""What Kafka's thread calls on the event loop: partitions come and go, messages, gaps, commits.

In: the intake's calls, in order. Out: the engine's partitions, restores, positions to commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import Message

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.intake_handler import Lag
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.ledger.restore import NOWHERE, LedgerRestore
from flagpost_consumer.adapters.pendo.http import LATE_SECONDS
from flagpost_consumer.core.books.deliveries import Partition, Position
from flagpost_consumer.core.records import Gap
from flagpost_consumer.service.commits import Commits
from flagpost_consumer.service.defects import vital
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.stalls import Stalls
from flagpost_consumer.service.stopping import Stopping

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 10.0
"""How long a hand-over waits for settlements once requests are answered. What the next owner does not find in the
ledger is sent to Pendo again; but the group waits for a member that hands over, and Kafka may take nothing for long.
"""


class KafkaCalls:
    """The intake's handler (`IntakeHandler`)."""

    def __init__(
        self,
        loop: EngineLoop,
        commits: Commits,
        stalls: Stalls,
        stopping: Stopping,
        request_timeout_seconds: float,
    ) -> None:
        self.defects = loop.defects
        self._loop = loop
        self._engine, self._observed = loop.engine, loop.metrics.observed
        self._commits = commits
        self._stalls = stalls
        self._stopping = stopping
        self._request_timeout_seconds = request_timeout_seconds
        self.restore: LedgerRestore | None = None
        """The thread that reads ledgers, once it exists."""
        self.assignment_of: dict[Partition, int] = {}
        """The number of the assignment by which each partition is ours."""

    @vital
    def on_messages(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Messages were read."""
        self._loop.decoding.take(messages, done)

    @vital
    def on_assigned(self, partitions: list[int], partition_count: int, assignment: int) -> None:
        """Partitions are assigned; their ledger is read before their records are."""
        self._observed.rebalances["assigned"] += 1
        log.info("assigned", partitions=partitions)
        self._begin(partitions, partition_count, assignment)

    def _begin(
        self,
        partitions: list[int],
        partition_count: int,
        assignment: int,
        went_back: Mapping[int, Start] = NOWHERE,
    ) -> None:
        assigned = self._engine.assign(partitions, partition_count, clock())
        self.assignment_of.update(dict.fromkeys(assigned, assignment))
        if self.restore is not None:
            self.restore.start(assigned, went_back)
        self._loop.wake()

    def on_partition_count(self, count: int) -> None:
        """The topic has this many partitions."""
        self._engine.assign([], count, clock())
        self._loop.wake()

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        """These partitions hold a new log: begin with them as if they were lost and assigned again.

        What is in flight is waited for as in a hand-over, so that the ledger gets its results.
        """
        try:
            await self._begin_anew(partitions, assignment, went_back)
        except Exception as error:  # noqa: BLE001 - told, and then the end
            self.defects.fail(error)

    async def _begin_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        await self._let_go(partitions)
        # Leave out partitions that the group has meanwhile taken away or assigned again.
        left = [number for number in partitions if self._is_older(number, assignment)]
        abandoned = self._engine.forget(left, clock())
        self._forget(left)
        log.warning("partitions with a new log are read again", partitions=left, abandoned_requests=abandoned)
        self._begin(left, self._engine.partition_count, assignment, went_back)

    def _is_older(self, number: int, assignment: int) -> bool:
        """Whether a partition is ours by an earlier assignment than this one."""
        current = self._engine.current(number)
        return current is not None and self.assignment_of.get(current, 0) < assignment

    async def _let_go(self, partitions: list[int]) -> None:
        """Hand back what waits in these partitions; wait for what is in flight, then for what is being written."""
        self._loop.decoding.discard(partitions)
        self._engine.revoke(partitions, clock())
        self._loop.wake()
        limit = self._request_timeout_seconds + LATE_SECONDS
        await self._wait(lambda: self._engine.are_answered(partitions), limit)
        await self._wait(lambda: self._engine.are_written(partitions), SETTLED_SECONDS)

    async def _wait(self, reached: Callable[[], bool], limit_seconds: float) -> None:
        """Wait until the engine has reached a state, for a time, or to the end of the drain."""
        await self._stopping.until(lambda: reached() or self._stopping.drained, limit_seconds)

    def on_epoch(self, partition: int, offset: int, epoch: int) -> None:
        """Another leader wrote what is read of a partition from an offset on; ledger records will say so."""
        if (current := self._engine.current(partition)) is not None:
            current.epochs.begins(offset, epoch)

    def on_gap(self, partition: int, gap: Gap) -> None:
        """Offsets that were to be read next are gone; what was read before them is decoded first."""
        current = self._engine.current(partition)
        if current is not None:
            self._loop.decoding.in_turn(partition, lambda: self._loop.writing.lose(current, gap))

    async def on_revoked(self, partitions: list[int]) -> dict[int, Position]:
        """Hand partitions over: what waits at once, what is in flight when it has ended."""
        self._observed.rebalances["revoked"] += 1
        await self._let_go(partitions)
        offsets = {} if self.defects.failed else self._engine.committable(partitions)
        abandoned = self._engine.forget(partitions, clock())
        if self._stopping.requested.is_set():
            self._stopping.abandoned_requests += abandoned
        log.info(
            "revoked",
            partitions=partitions,
            committed=[f"{number}/{position.offset}" for number, position in sorted(offsets.items())],
            abandoned_requests=abandoned,
        )
        self._forget(partitions)
        self._loop.wake()
        return offsets

    @vital
    def on_lost(self, partitions: list[int]) -> None:
        """Partitions already belong to another member: nothing of them may be committed."""
        self._observed.rebalances["lost"] += 1
        self._loop.decoding.discard(partitions)
        abandoned = self._engine.forget(partitions, clock())
        log.warning("lost", partitions=partitions, abandoned_requests=abandoned)
        self._forget(partitions)
        self._loop.wake()

    def on_lag(self, lag: Mapping[int, Lag]) -> None:
        """How far each partition is behind."""
        self._observed.lag = dict(lag)
        self._stalls.note_lag(lag, paused=self._loop.paused)

    @vital
    def on_commit_ended(self, began_at: float | None) -> None:
        """A commit proves our membership; one that failed is repeated."""
        self._commits.ended(began_at, clock().monotonic)
        self._loop.wake()

    def _forget(self, partitions: list[int]) -> None:
        """Forget partitions that belong to another member."""
        self._loop.metrics.experiments.forget(partitions)
        if self.restore is not None:
            self.restore.give_up(partitions)
        self._loop.writing.forget(partitions)
        for number in partitions:
            self._observed.lag.pop(number, None)
            self._stalls.held.pop(number, None)
        for partition in [each for each in self.assignment_of if not self._engine.is_current(each)]:
            del self.assignment_of[partition]
