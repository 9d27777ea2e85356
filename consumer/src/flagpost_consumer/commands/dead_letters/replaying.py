"""One run of `flagpost dead-letters replay`.

In: settings, filters, a limit. Out: originals on the events topic, a marker for each, and how far it came. A run
first chooses, then carries out. If it is to carry out, its producer is opened first: then an earlier replay can
change nothing any more, and what is read is final. So a run that ends at any point can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from flagpost_consumer.adapters.kafka.message_headers import headers_of
from flagpost_consumer.commands.dead_letters.assessing import Assessor, Candidate, Skip
from flagpost_consumer.commands.dead_letters.delivered import Claims, read_delivered
from flagpost_consumer.commands.dead_letters.reading import Filters, Scan, read_places
from flagpost_consumer.commands.dead_letters.records import Place, place_of
from flagpost_consumer.commands.dead_letters.selecting import Selection, select
from flagpost_consumer.commands.dead_letters.transactions import Replay, ReplayProducer
from flagpost_consumer.commands.privacy.suppressed import read_suppressions
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import Settings, keyed_policy
from flagpost_consumer.terminal.progress import watched

BATCH_RECORDS = 100
BATCH_BYTES = 8_000_000
"""A transaction is complete when it reaches either limit."""


class Interrupted(Exception):  # noqa: N818 (the operator's wish, no fault)
    """The operator ends the run; what was replayed is marked."""


class Run:
    """The progress of one run."""

    def __init__(self, settings: Settings, reader: TopicReader) -> None:
        self._settings = settings
        self._reader = reader
        self.selection = Selection()
        self.replayed = 0
        """Dead letters whose replay Kafka has acknowledged."""
        self.damaged = 0
        """Unreadable ledger records; what they settled may be sent again."""
        self.foreign = 0
        """Records on the dead-letter topic that are not Flagpost's."""

    @property
    def matched(self) -> int:
        """Dead letters to be replayed or skipped."""
        return len(self.selection.replays) + self.selection.skips

    def choose(self, filters: Filters, limit: int | None) -> None:
        """Decide what is to be replayed.

        Raises:
            KafkaUnavailable: Kafka does not answer, or refuses.
            RegistryNotAnswering: a value needs the schema registry.
            LedgerUnreadable: a later release wrote the ledger.
        """
        scan = Scan(self._reader, self._settings.kafka.dead_letter_topic)
        candidates = self._candidates(scan, filters)
        claims = [part.claim for each in candidates for part in each.parts if part.claim is not None]
        delivered = read_delivered(self._reader, self._settings, claims)
        taken = Claims(self._settings.dedupe.ttl_seconds)
        self.selection = select(candidates, delivered.claims, taken, limit)
        self.foreign, self.damaged = scan.foreign, delivered.damaged

    def carry_out(self, producer: ReplayProducer, interrupted: Callable[[], bool]) -> None:
        """Replay what was chosen; what `replayed` counts is done even if this raises.

        Raises:
            KafkaUnavailable: Kafka does not answer, or refuses.
            Interrupted: `interrupted` was true between two transactions.
        """
        left = set(self.selection.replays)
        places = self._replayed_places(producer, interrupted)
        for place in watched(places, "dead letters replayed", len(left)):
            left.remove(place)
        for place in left:
            self.selection.skip(place, Skip.GONE)

    def _candidates(self, scan: Scan, filters: Filters) -> list[Candidate]:
        values = Values(self._settings.kafka.schema_registry)
        suppressions = read_suppressions(self._reader, self._settings.kafka.suppressions_topic)
        assessor = Assessor(keyed_policy(self._settings), values, time.time_ns() // 1_000_000, suppressions)
        found = [assessor.assess(letter, value) for letter, value in scan.letters(filters)]
        return [candidate for candidate in found if candidate.letter.place not in scan.replayed]

    def _replayed_places(self, producer: ReplayProducer, interrupted: Callable[[], bool]) -> Iterator[Place]:
        for batch in _batches(self._replays()):
            if interrupted():
                raise Interrupted
            refused = producer.replay(batch)
            self.replayed += len(batch) - len(refused)
            for place in refused:
                self.selection.skip(place, Skip.TOO_LARGE)
            yield from (replay.place for replay in batch)

    def _replays(self) -> Iterator[Replay]:
        chosen = dict(self.selection.replays)
        topic = self._settings.kafka.dead_letter_topic
        for message in read_places(self._reader, topic, chosen):
            place = place_of(message)
            yield Replay(
                place=place,
                source=chosen[place].letter.source,
                kind=chosen[place].kind,
                key=message.key(),
                value=message.value(),
                headers=headers_of(message),
            )


def _batches(replays: Iterable[Replay]) -> Iterator[list[Replay]]:
    batch: list[Replay] = []
    size_bytes = 0
    for replay in replays:
        batch.append(replay)
        size_bytes += len(replay.value or b"")
        if len(batch) >= BATCH_RECORDS or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
