"""Topics with dead letters on a real Kafka, for the tests of `flagpost dead-letters`.

In: dead letters and settlements, as the consumer writes them. Out: what the command prints, and the records that are
committed on the topics afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import orjson
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from deadlines import stretched
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import (
    Event,
    LedgerEntry,
    Settlements,
    TrackEvent,
    encode_settlements,
    encode_single_object,
    partition_key,
)
from real_kafka.broker import KafkaBroker
from running import environment
from traffic import in_order

COMMIT_SECONDS = 30.0

Headers = list[tuple[str, str | bytes | None]]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def step(event_id: str, visitor: str = "v1", **fields: Any) -> TrackEvent:
    """A track event that occurs now."""
    given = {"occurred_at": wall_ms(), "event": "Step", **fields}
    return TrackEvent(event_id=event_id, visitor_id=visitor, **given)


@dataclass(frozen=True, slots=True)
class Letter:
    """A record of the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def at(self) -> int:
        return int(cast("bytes", dict(self.headers)["flagpost-at"]))


def letter(event: Event | bytes | None, *, original: Headers | None = None, **named: object) -> Letter:
    """A dead letter. `named`: values for its headers, by name without the prefix; None leaves a header out."""
    given = {
        "reason": "rejected",
        "detail": "Pendo said no",
        "kind": "track",
        "source": "events/0/7",
        "attempts": 1,
        "at": wall_ms(),
        "status": 400,
        **named,
    }
    ours: Headers = [(f"flagpost-{n}", str(v).encode()) for n, v in given.items() if v is not None]
    headers = [*(original or []), *ours]
    if isinstance(event, bytes | None):
        return Letter(b"v1", event, headers)
    return Letter(partition_key(event), encode_single_object(event), headers)


def settled(event: TrackEvent, key: bytes, **fields: Any) -> LedgerEntry:
    """The entry of a delivered track event."""
    given = {"offset": 0, "kind": "track", "outcome": "delivered", "reason": "ok", **fields}
    return LedgerEntry(**{"dedupe_key": key, "occurred_at": event.occurred_at, **given})


@dataclass(frozen=True, slots=True)
class Put:
    """A committed record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def header(self, name: str) -> str | None:
        value = dict(self.headers).get(name)
        return value.decode() if isinstance(value, bytes) else value


def run_dead_letters(settings: Mapping[str, object], *arguments: str) -> Result:
    """Run `flagpost dead-letters …`."""
    environ: dict[str, str | None] = {**environment(settings), "FLAGPOST_CONFIG": None}
    return CliRunner().invoke(flagpost, ["dead-letters", *arguments], env=environ)


class WholeTopic(AbstractContextManager["WholeTopic"]):
    """The ends of a topic's partitions, including records that are not committed."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": "watch",
                "isolation.level": "read_uncommitted",
                "log_level": 0,
            }
        )
        found = self._consumer.list_topics(topic, timeout=stretched(10)).topics[topic]
        self._partitions = [TopicPartition(topic, number) for number in found.partitions]

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def ends(self) -> dict[int, int]:
        """For each partition, the offset after its last record."""
        return {
            each.partition: self._consumer.get_watermark_offsets(each, timeout=stretched(10))[1]
            for each in self._partitions
        }


class DeadLetterTopics:
    """One test's topics."""

    def __init__(
        self, kafka: KafkaBroker, name: str, partitions: int = 3, *, max_message_bytes: int = 1_048_588
    ) -> None:
        self.events, self.ledger, self.dead = f"{name}.events", f"{name}.ledger", f"{name}.dead-letters"
        kafka.create_topics(
            self.events, partitions=partitions, config={"max.message.bytes": str(max_message_bytes)}
        )
        kafka.create_topics(self.ledger, self.dead, partitions=partitions)
        self.group = name
        self.settings: dict[str, object] = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": name,
            "kafka.topic": self.events,
            "kafka.ledger_topic": self.ledger,
            "kafka.dead_letter_topic": self.dead,
        }
        self.kafka = KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=name,
            topic=self.events,
            ledger_topic=self.ledger,
            dead_letter_topic=self.dead,
        )

    def bury(self, *letters: Letter) -> list[str]:
        """Write dead letters in this order; returns their places."""
        return self._produce(self.dead, [(each.key, each.value, each.headers) for each in letters])

    def settle(self, *entries: LedgerEntry, group: str | None = None) -> None:
        """Write a record of the ledger."""
        settlements = Settlements(
            group=group or self.group, member="m", settled_at=wall_ms(), entries=list(entries), gaps=[]
        )
        self.write_ledger(encode_settlements(settlements))

    def write_ledger(self, value: bytes) -> None:
        self._produce(self.ledger, [(None, value, [])])

    def run(self, *arguments: str, **settings: object) -> Result:
        """Run `flagpost dead-letters …`; a setting's dots are written as two underscores."""
        given = {key.replace("__", "."): value for key, value in settings.items()}
        result = run_dead_letters({**self.settings, **given}, *arguments)
        if arguments[0] == "replay" and result.exit_code == 0:
            self._await_commits(self.events)
            self._await_commits(self.dead)
        return result

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The output of `list --json`."""
        result = self.run("list", "--json", *arguments)
        assert result.exit_code == 0, result.output
        return [orjson.loads(line) for line in result.stdout.splitlines()]

    def replay(self, *arguments: str, **settings: object) -> dict[str, Any]:
        """The output of `replay --json`; fails if anything else is on stdout."""
        result = self.run("replay", "--json", *arguments, **settings)
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = orjson.loads(result.stdout)
        assert set(document) == {"matched", "replayed", "skipped", "dry_run"}
        assert document["matched"] >= document["replayed"] + document["skipped"]
        return document

    def replayed(self) -> list[Put]:
        """The records on the events topic."""
        return self._read(self.events)

    def markers(self) -> list[Put]:
        """The markers on the dead-letter topic."""
        return [put for put in self._read(self.dead) if put.header("flagpost-replayed") is not None]

    def sources(self) -> dict[str, str]:
        """Each dead letter's position, and the source in its header."""
        named = {
            f"{put.partition}/{put.offset}": put.header("flagpost-source") for put in self._read(self.dead)
        }
        return {place: source for place, source in named.items() if source is not None}

    def _read(self, topic: str) -> list[Put]:
        with TopicReader(self.kafka) as reader:
            return [_put(message) for message in reader.read(topic, reader.spans(topic))]

    def _await_commits(self, topic: str) -> None:
        """Wait until readers see what was committed: Kafka confirms a commit a moment before that."""
        deadline = time.monotonic() + stretched(COMMIT_SECONDS)
        with WholeTopic(self.kafka, topic) as whole, TopicReader(self.kafka) as reader:
            while {number: span.end for number, span in reader.spans(topic).items()} != whole.ends():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a transaction is still open in {topic}")
                time.sleep(0.02)

    def _produce(
        self, topic: str, records: Iterable[tuple[bytes | None, bytes | None, Headers]]
    ) -> list[str]:
        producer = Producer(in_order(self.kafka.bootstrap_servers or ""))
        places: dict[int, str] = {}

        def noting(number: int) -> Callable[[KafkaError | None, Message], None]:
            def note(error: KafkaError | None, message: Message) -> None:
                assert error is None, error
                places[number] = f"{message.partition()}/{message.offset()}"

            return note

        for number, (key, value, headers) in enumerate(records):
            producer.produce(topic, value, key, headers=headers, on_delivery=noting(number))
            producer.poll(0)
        assert producer.flush(stretched(60)) == 0
        return [places[number] for number in sorted(places)]


def _put(message: Message) -> Put:
    return Put(
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        cast("Headers", message.headers() or []),
    )
