"""Waits until the rows of an import have ended, according to the ledger.

In: the rows, the ledger from where it ended before the import began. Out: each row's end in the report; why the
waiting ended early, if it did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from confluent_kafka import Message

from flagpost_consumer.commands.imports.awaited import Awaited, AwaitedRow
from flagpost_consumer.commands.imports.row_report import RowReport
from flagpost_consumer.commands.reconcile.own_settlements import OwnSettlements
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.settings import KafkaSettings, Settings
from flagpost_consumer.terminal.echo import echo
from flagpost_consumer.terminal.progress import counted
from flagpost_schemas import DecodeError, Settlements, decode_settlements

LOOK_SECONDS = 5.0
"""After this long without an end, check whether there is a consumer at all."""


class Unended(NamedTuple):
    """Why rows had not ended when the waiting was over."""

    reason: str
    """A word for the report."""
    why: str
    """For people: what is wrong, and what to do."""


INTERRUPTED = Unended("interrupted", "interrupted; the rows are in Kafka and will still be delivered")


@dataclass(slots=True)
class LedgerFrom:
    """Where the ledger ended before the import began."""

    kafka: KafkaSettings
    own: OwnSettlements
    first: Mapping[int, int]


def ledger_from(kafka: KafkaSettings) -> LedgerFrom:
    """Note where the ledger ends. Raises KafkaUnavailable."""
    with TopicReader(kafka) as reader:
        first = {number: span.end for number, span in reader.spans(kafka.ledger_topic).items()}
    return LedgerFrom(kafka, OwnSettlements.asking(kafka), first)


class Waiting:
    """The waiting of one import."""

    def __init__(
        self,
        settings: Settings,
        began: LedgerFrom,
        awaited: Awaited,
        report: RowReport,
        *,
        patience_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_seconds`: how long to wait while no row ends."""
        self._settings = settings
        self._began = began
        self._awaited = awaited
        self._report = report
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._ended_at = self._looked_at = monotonic()
        self._has_told = False

    def wait(self, interrupted: Callable[[], bool]) -> Unended | None:
        """Wait; what has not ended then is also reported. Raises KafkaUnavailable."""
        unended = self._follow(interrupted) if self._awaited.left else None
        if unended is not None:
            self.leave(unended)
        return unended

    def leave(self, unended: Unended) -> None:
        """Report the rows that have not ended."""
        for row in self._awaited.rest():
            self._report.leave(row, *unended)

    def _follow(self, interrupted: Callable[[], bool]) -> Unended | None:
        awaited, topic = self._awaited, self._began.kafka.ledger_topic
        with TopicReader(self._began.kafka) as reader, counted("rows ended", awaited.total) as tell:
            self._ended_at = self._looked_at = self._monotonic()
            for message in reader.follow({topic: self._began.first}):
                if message is not None:
                    self._take(message)
                    tell(awaited.total - awaited.left)
                if not awaited.left:
                    return None
                if interrupted():
                    return INTERRUPTED
                if message is None and self._is_at_end_of_patience():
                    return self._given_up()
        raise AssertionError("following never ends")

    def _take(self, message: Message) -> None:
        number = cast("int", message.partition())
        for settlements in self._settlements(message):
            for entry in settlements.entries:
                line = self._awaited.end(number, entry.offset)
                if line is not None:
                    self._ended_at = self._monotonic()
                    self._report.end(AwaitedRow(line, number, entry.offset), entry, settlements.settled_at)

    def _settlements(self, message: Message) -> Iterator[Settlements]:
        """The settlements in a ledger record of this group and this topic."""
        try:
            settlements = decode_settlements(message.value())
        except DecodeError:
            return
        if self._began.own.include(settlements):
            yield settlements

    def _is_at_end_of_patience(self) -> bool:
        now = self._monotonic()
        if now - max(self._ended_at, self._looked_at) >= LOOK_SECONDS:
            self._looked_at = now
            if not self._has_told and self._no_consumer():
                self._has_told = True
                echo(f"{self._no_consumer_text()}; waiting", err=True)
        return now - self._ended_at >= self._patience_seconds

    def _given_up(self) -> Unended:
        waited = f"no row has ended for {self._patience_seconds:g} s"
        if self._no_consumer():
            return Unended("no_consumer", f"{waited}: {self._no_consumer_text()}. The rows wait in Kafka")
        return Unended(
            "timed_out",
            f"{waited}: {self._pendos_state()}. The rows are in Kafka and will still be delivered",
        )

    def _no_consumer(self) -> bool:
        try:
            return KafkaAdmin(self._began.kafka).members(self._began.kafka.group_id) == 0
        except KafkaUnavailable:
            return False

    def _no_consumer_text(self) -> str:
        return f"no consumer of group {self._began.kafka.group_id} is running (flagpost consume)"

    def _pendos_state(self) -> str:
        from flagpost_consumer.commands.sources.consumer_state import ask_consumer  # noqa: PLC0415 - an HTTP client, for few

        state = asyncio.run(ask_consumer(self._settings))
        for name, said in {} if state is None else state.endpoints.items():
            if said.state != EndpointState.OK:
                return f"Pendo's {name.value} endpoint is {said.state} ({said.status}); {said.to_do}"
        return "look at /status of the consumers, and run flagpost check"
