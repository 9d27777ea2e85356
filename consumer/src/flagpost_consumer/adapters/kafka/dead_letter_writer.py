"""Writes dead letters.

In: settlements whose outcome is dead_lettered. Out: a record on the dead-letter topic for each, and its
acknowledgement. What Kafka does not accept is retried without end, unless its delivery is handed back meanwhile: then
another member writes it. Until Kafka has it, its delivery stays pending, so no more wait here than the engine may
hold pending.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import structlog
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka.producer import KafkaProducer
from flagpost_consumer.adapters.kafka.write_line import WriteLine
from flagpost_consumer.core.books.deliveries import Settlement, Stage
from flagpost_consumer.core.records import Headers
from flagpost_kafka import errors
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)

MAX_DETAIL_CHARACTERS = 300
OWN_BYTES = 300
"""The approximate size of our headers."""
HEADER_PREFIX = "flagpost-"


class Cut(IntEnum):
    """What is left out of a dead letter that its topic refused for its size; each step also leaves out what those
    before it do.
    """

    NOTHING = 0
    VALUE = 1
    HEADERS = 2
    """The original's headers."""
    KEY = 3


@dataclass(slots=True, eq=False)
class _Letter:
    """A dead letter that is not written yet."""

    settlement: Settlement
    line: WriteLine[_Letter]
    cut: Cut = Cut.NOTHING

    @property
    def partition(self) -> int:
        """The original's partition."""
        return self.settlement.delivery.record.partition

    @property
    def is_wanted(self) -> bool:
        """Whether its delivery still belongs to this process."""
        return self.settlement.delivery.stage is Stage.SETTLED

    @property
    def size_bytes(self) -> int:
        """The approximate bytes that it takes in librdkafka."""
        record = self.settlement.delivery.record
        headers = sum(len(name) + len(value or b"") for name, value in record.headers)
        return len(record.value or b"") + len(record.key or b"") + headers + OWN_BYTES


class DeadLetterWriter:
    """Writes one process's dead letters. Use it on the event loop only."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        source_topic: str,
        on_written: Callable[[Settlement], None],
    ) -> None:
        # A batch that is too large fails as a whole; so each record is sent alone, and fails only for its own size.
        self._producer = KafkaProducer({**config, "batch.num.messages": 1}, topic, "dead letters")
        self._source_topic = source_topic
        self._on_written = on_written
        self._lately = Lately()
        self._lines: dict[int, WriteLine[_Letter]] = {}
        self._refused: dict[int, WriteLine[_Letter]] = {}  # those that are refused for what they hold
        self._sent: dict[_Letter, None] = {}

    @property
    def waiting(self) -> int:
        """How many dead letters Kafka has not acknowledged."""
        return sum(map(len, (*self._lines.values(), *self._refused.values())))

    @property
    def stalled(self) -> dict[int, str]:
        """Partitions of the events topic whose dead letters Kafka has not accepted for a while, and why."""
        return {
            number: reason
            for lines in (self._refused, self._lines)
            for number, line in lines.items()
            if (reason := line.stalled) is not None
        }

    def serve(self) -> None:
        """Handle delivery reports; recall what is no longer wanted."""
        self._recall()
        self._producer.serve()

    def write(self, settlement: Settlement) -> None:
        """Write a dead letter; `on_written` is called on the loop once Kafka has it."""
        line = self._line(self._lines, settlement.delivery.record.partition)
        cut = Cut.VALUE if settlement.delivery.record.truncated else Cut.NOTHING
        line.offer(_Letter(settlement, line, cut))

    def made_anew(self) -> None:
        """The topic was created anew."""
        self._producer.renew()

    def forget(self, partitions: Collection[int]) -> None:
        """Partitions belong to another member: nothing of them that was not sent yet is written."""
        for lines in (self._lines, self._refused):
            for number in partitions:
                if (line := lines.pop(number, None)) is not None:
                    line.prune()
        self._recall()

    def _recall(self) -> None:
        if any(not letter.is_wanted for letter in self._sent):
            self._producer.recall()

    def _line(self, lines: dict[int, WriteLine[_Letter]], partition: int) -> WriteLine[_Letter]:
        line = lines.get(partition)
        if line is None:
            line = lines[partition] = WriteLine(
                self._produce, lambda each: each.is_wanted, lambda each: each.size_bytes
            )
        return line

    def _produce(self, letter: _Letter) -> None:
        record, cut = letter.settlement.delivery.record, letter.cut
        headers = dead_letter_headers(letter.settlement, self._source_topic, original=cut < Cut.HEADERS)
        if cut:
            headers.append(("flagpost-truncated", b"true"))
        self._sent[letter] = None
        self._producer.produce(
            None if cut else record.value,
            lambda error, _: self._reported(letter, error),
            key=None if cut >= Cut.KEY else record.key,
            headers=headers,
        )

    def _reported(self, letter: _Letter, error: KafkaError | None) -> None:
        del self._sent[letter]
        if error is None:
            if letter.is_wanted:
                self._on_written(letter.settlement)
            letter.line.taken(letter)
        elif error.code() in errors.PURGED:
            letter.line.recalled(letter)
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and letter.cut < Cut.KEY:
            letter.cut = Cut(letter.cut + 1)
            letter.line.recalled(letter)
        else:
            self._tell(letter, error)
            self._refuse(letter, error)

    def _refuse(self, letter: _Letter, error: KafkaError) -> None:
        own_line = self._refused.get(letter.partition)
        if error.code() not in errors.RECORDS or letter.line is own_line:
            letter.line.refused(letter, error.str())
        else:  # this refusal says nothing about the letters behind it
            letter.line.taken(letter)
            letter.line = self._line(self._refused, letter.partition)
            letter.line.hold(letter, error.str())

    def _tell(self, letter: _Letter, error: KafkaError) -> None:
        if self._lately.is_news(error.str()):
            log.warning(
                "Kafka does not take a dead letter; it is retried, as are others that are refused",
                reason=error.str(),
                partition=letter.partition,
                offset=letter.settlement.delivery.record.offset,
                waiting=self.waiting,
            )


def dead_letter_headers(
    settlement: Settlement, source_topic: str, *, original: bool = True
) -> list[tuple[str, str | bytes | None]]:
    """The original's headers without ours from an earlier death, and those of docs/contract.md#dead-letters.

    `original`: whether to include the original's.
    """
    delivery, ending = settlement.delivery, settlement.ending
    record = delivery.record
    ours = {
        "reason": ending.reason.value,
        "detail": ending.detail[:MAX_DETAIL_CHARACTERS],
        "kind": delivery.kind.value,
        "source": f"{source_topic}/{record.partition}/{record.offset}",
        "attempts": str(delivery.attempts),
        "at": str(settlement.settled_at_ms),
    }
    if delivery.status is not None:
        ours["status"] = str(delivery.status)
    kept: Headers = record.headers if original else ()
    theirs = [header for header in kept if not header[0].startswith(HEADER_PREFIX)]
    return [*theirs, *((HEADER_PREFIX + name, text.encode()) for name, text in ours.items())]
