"""The rules for Flagpost's topics (docs/contract.md#topics).

In: settings, and the topics in Kafka. Out: what to create, and what does not fit in existing topics, each with the
command that fixes it. Nothing here talks to Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flagpost_consumer.adapters.kafka.config import largest_batch_bytes
from flagpost_consumer.adapters.ledger.writer import MAX_RECORD_BYTES as LEDGER_RECORD_BYTES
from flagpost_consumer.settings import KafkaSettings, Settings
from flagpost_consumer.terminal.numbers import count_of

DAY_MS = 86_400_000
MARGIN_MS = 2 * DAY_MS
"""Events must outlive `delivery.max_age_seconds` by this: the time that people have to fix an outage."""

MAX_RECORD_BYTES = 1_048_588
"""Kafka's own default for the largest batch of a topic."""
EVENT_EXTRA_BYTES = 1_024
"""Kafka counts the batch around an event, 61 bytes, the framing of its key and value, and headers of the sender."""
LEDGER_BYTES = LEDGER_RECORD_BYTES + EVENT_EXTRA_BYTES
"""The same for the ledger's largest record."""
DEAD_LETTER_EXTRA_BYTES = 65_536
"""A dead letter is the original record and Flagpost's headers."""

PERSONAL_MS = 26 * DAY_MS
"""How long the ledger and the dead letters are kept: with a segment's day, and one for wrong clocks, personal data is
gone within 28 days, in time to answer a request within a month (docs/privacy.md).
"""

SEGMENT_MS = DAY_MS
"""Kafka deletes whole segments of a log: a record outlives its retention by this at most."""

DEFAULT_PARTITIONS = 24
DEFAULT_REPLICATION = 3


class Role(StrEnum):
    """What a topic is for."""

    EVENTS = "events"
    LEDGER = "ledger"
    DEAD_LETTERS = "dead letters"
    WEBHOOKS = "webhooks"
    SUPPRESSIONS = "suppressions"
    IMPRESSIONS = "impressions"
    """Counts without anything of a visitor; only if requested."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is created."""

    role: Role
    name: str
    retention_ms: int | None
    """None: the newest record of each key is kept for ever, and the older ones for days (compaction)."""
    max_message_bytes: int = MAX_RECORD_BYTES

    def partitions(self, wanted: int) -> int:
        """The number of its partitions: a compacted topic is small, and has one."""
        return 1 if self.retention_ms is None else wanted

    def config(self, replication: int) -> dict[str, str]:
        """Kafka's topic settings; three replicas or more survive the loss of one without losing a write."""
        compacted = {"cleanup.policy": "compact", "max.compaction.lag.ms": str(SEGMENT_MS)}
        deleted = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        return {
            **(compacted if self.retention_ms is None else deleted),
            "segment.ms": str(SEGMENT_MS),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "CreateTime",
            "min.insync.replicas": "2" if replication >= 3 else "1",
        }


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as Kafka has it."""

    partitions: int
    retention_ms: float
    """Infinite when nothing is ever deleted."""
    max_message_bytes: int
    cleanup_policy: str
    segment_ms: int = SEGMENT_MS

    @property
    def kept_ms(self) -> float:
        """How long a record may exist; infinite if the newest of its key is never deleted."""
        if "delete" not in self.cleanup_policy:
            return float("inf")
        return self.retention_ms + self.segment_ms

    def __str__(self) -> str:
        """A line for people."""
        kept = f"kept {days(self.retention_ms)}" if "delete" in self.cleanup_policy else "compacted"
        return f"{count_of(self.partitions, 'partition')}, {kept}, records of up to {self.max_message_bytes} bytes"


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit in a topic, and what fixes it."""

    topic: str
    detail: str
    fix: str


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """The topics that Flagpost uses."""
    kafka = settings.kafka
    events_bytes = max(MAX_RECORD_BYTES, least_events_bytes(kafka))
    specs = (
        TopicSpec(Role.EVENTS, kafka.topic, 14 * DAY_MS, events_bytes),
        TopicSpec(Role.LEDGER, kafka.ledger_topic, PERSONAL_MS),
        TopicSpec(
            Role.DEAD_LETTERS,
            kafka.dead_letter_topic,
            PERSONAL_MS,
            events_bytes + DEAD_LETTER_EXTRA_BYTES,
        ),
        TopicSpec(Role.WEBHOOKS, settings.gateway.webhook_topic, 14 * DAY_MS),
        TopicSpec(Role.SUPPRESSIONS, kafka.suppressions_topic, None),
    )
    if kafka.impressions_topic is None:
        return specs
    return (*specs, TopicSpec(Role.IMPRESSIONS, kafka.impressions_topic, 14 * DAY_MS))


def least_events_bytes(kafka: KafkaSettings) -> int:
    """The least `max.message.bytes` of an events topic that takes every event which the settings allow."""
    return kafka.max_event_bytes + EVENT_EXTRA_BYTES


def days(milliseconds: float) -> str:
    """A retention for people."""
    return "for ever" if milliseconds == float("inf") else f"{milliseconds / DAY_MS:.3g} d"


_ANY_NUMBER = frozenset({Role.SUPPRESSIONS, Role.IMPRESSIONS})
"""Topics whose partitions are independent of the events' partitions."""


class TopicRules:
    """Judges existing topics."""

    def __init__(self, settings: Settings, partitions: int | None = None) -> None:
        """With `partitions`, each topic must have that many; without, as many as the events topic."""
        specs = topic_specs(settings)
        self._names = {spec.role: spec.name for spec in specs}
        self._events_bytes = specs[0].max_message_bytes
        self._servers = settings.kafka.bootstrap_servers
        self._max_age_ms = settings.delivery.max_age_seconds * 1000
        self._least_events_bytes = least_events_bytes(settings.kafka)
        self._largest_batch_bytes = largest_batch_bytes(settings.kafka)
        self._partitions = partitions

    def misfits(self, topics: Mapping[str, TopicState]) -> list[Misfit]:
        """What does not fit, by topic name; a missing topic is not judged."""
        found = {role: topics[name] for role, name in self._names.items() if name in topics}
        return [
            *self._uneven(found),
            *self._compacted(found),
            *self._forgetful(found),
            *self._small(found),
        ]

    def doubts(self, topics: Mapping[str, TopicState]) -> list[Misfit]:
        """What works now, but should be changed."""
        found = {role: topics[name] for role, name in self._names.items() if name in topics}
        return [*self._large(found), *self._late(found)]

    def _large(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        """What works only while nobody uses all that a topic allows."""
        events = found.get(Role.EVENTS)
        if events is not None and events.max_message_bytes > self._largest_batch_bytes:
            yield self._misfit(
                Role.EVENTS,
                f"takes batches of up to {events.max_message_bytes} bytes; the first one over "
                f"{self._largest_batch_bytes} makes each consumer rejoin the group and use more memory",
                f"{self._alter(Role.EVENTS, f'max.message.bytes={self._events_bytes}')}, or set "
                f"receive.message.max.bytes in kafka.properties to {3 * events.max_message_bytes}",
            )

    def _late(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        """Topics that keep personal data for much longer than their retention says."""
        for role, state in found.items():
            if state.segment_ms > SEGMENT_MS:
                yield self._misfit(
                    role,
                    f"has segments of up to {days(state.segment_ms)}, so it keeps records longer than its retention "
                    "by up to that much",
                    self._alter(role, f"segment.ms={SEGMENT_MS}"),
                )

    def _uneven(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        events = found.get(Role.EVENTS)
        wanted = self._partitions if self._partitions or events is None else events.partitions
        for role, state in found.items():
            if role in _ANY_NUMBER or wanted is None:
                continue
            if state.partitions != wanted:
                yield self._misfit(
                    role,
                    f"has {count_of(state.partitions, 'partition')} instead of {wanted}; all topics need the same "
                    "number",
                    self._fix_for_partitions(role, state.partitions, wanted, events),
                )

    def _fix_for_partitions(self, role: Role, has: int, wanted: int, events: TopicState | None) -> str:
        """Kafka cannot remove partitions, and growing the events topic moves visitors: so no command of ours
        does it.
        """
        if has > wanted or (events is not None and has == events.partitions):
            return f"run flagpost topics create --partitions {has}, or see docs/topics.md on growing"
        alter = f"--alter --topic {self._names[role]} --partitions {wanted}"
        return f"kafka-topics.sh --bootstrap-server {self._servers} {alter}"

    def _compacted(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        for role, state in found.items():
            wanted = "compact" if role is Role.SUPPRESSIONS else "delete"
            if state.cleanup_policy != wanted:
                yield self._misfit(
                    role,
                    f"has cleanup.policy {state.cleanup_policy}, which removes records that are still needed",
                    self._alter(role, f"cleanup.policy={wanted}"),
                )

    def _forgetful(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        events, ledger = found.get(Role.EVENTS), found.get(Role.LEDGER)
        least = self._max_age_ms + MARGIN_MS
        if events is not None and events.retention_ms < least:
            yield self._misfit(
                Role.EVENTS,
                f"keeps records {days(events.retention_ms)}; it needs {days(least)}: delivery.max_age_seconds + 2 d",
                self._alter(Role.EVENTS, f"retention.ms={int(least)}"),
            )
        if events is not None and ledger is not None and ledger.retention_ms < events.retention_ms:
            kept = -1 if events.retention_ms == float("inf") else int(events.retention_ms)
            yield self._misfit(
                Role.LEDGER,
                f"keeps records {days(ledger.retention_ms)}, less than the events' {days(events.retention_ms)}",
                self._alter(Role.LEDGER, f"retention.ms={kept}"),
            )

    def _small(self, found: Mapping[Role, TopicState]) -> Iterator[Misfit]:
        events = found.get(Role.EVENTS)
        needs = {
            Role.EVENTS: (self._least_events_bytes, "an event of kafka.max_event_bytes needs"),
            Role.LEDGER: (LEDGER_BYTES, "the largest record of settlements needs"),
        }
        if events is not None:
            least = events.max_message_bytes + DEAD_LETTER_EXTRA_BYTES
            needs[Role.DEAD_LETTERS] = (least, "the largest event and its headers need")
        for role, (least, why) in needs.items():
            if role in found and found[role].max_message_bytes < least:
                yield self._misfit(
                    role,
                    f"takes records of up to {found[role].max_message_bytes} bytes; {why} {least}",
                    self._alter(role, f"max.message.bytes={least}"),
                )

    def _alter(self, role: Role, config: str) -> str:
        topic = f"--alter --entity-type topics --entity-name {self._names[role]}"
        return f"kafka-configs.sh --bootstrap-server {self._servers} {topic} --add-config {config}"

    def _misfit(self, role: Role, detail: str, fix: str) -> Misfit:
        return Misfit(self._names[role], detail, fix)
