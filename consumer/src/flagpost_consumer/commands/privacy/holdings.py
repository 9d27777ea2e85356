"""Where a visitor's data is in Flagpost's topics, until when, and which of it Kafka can delete.

In: the topics, and functions that recognise a visitor's traces. Out: a `Holding` for each topic. Kafka cannot delete
single records, only the older end of a partition. So records can be deleted at once if they are there and only the
visitor's; all others disappear when the topic's retention removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from confluent_kafka import Message

from flagpost_consumer.commands.privacy.traces import Traces
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.commands.topics.rules import Role, TopicSpec, TopicState
from flagpost_consumer.terminal.progress import watched


@dataclass(slots=True)
class Holding:
    """One topic's data about a visitor."""

    spec: TopicSpec
    state: TopicState | None
    """None: there is no such topic."""
    entries: int = 0
    """Records; of the ledger, settlements."""
    newest_ms: int | None = None
    """When the newest of them was produced, epoch ms."""
    removable: int = 0
    """How many of these are at the older end of their partition, without anybody else's before them."""
    below: dict[int, int] = field(default_factory=dict)
    """By partition: what is below this offset can be deleted."""
    removed: int = 0

    @property
    def gone_by_ms(self) -> float | None:
        """When the last of the rest will be gone, epoch ms; infinite if nothing removes it; None: there is none."""
        if self.newest_ms is None or self.state is None or self.entries == self.removed:
            return None
        return inf if self.state.kept_ms == inf else self.newest_ms + self.state.kept_ms


def find(
    reader: TopicReader,
    spec: TopicSpec,
    state: TopicState | None,
    traces: Traces,
    committed: Mapping[int, int],
) -> Holding:
    """Search a topic. `committed`: up to where the group has settled the events of each partition.

    Raises:
        KafkaUnavailable: Kafka does not answer, or does not allow it.
        RegistryNotAnswering: a value needs the schema registry.
    """
    holding = Holding(spec, state)
    if state is None:
        return holding
    spans = reader.spans(spec.name)
    older_end = _OlderEnd(spec, spans, committed)
    messages = reader.read(spec.name, spans)
    for message in watched(messages, f"records of {spec.name} read", sum(map(len, spans.values()))):
        count = traces(message)
        if count:
            holding.entries += count
            holding.newest_ms = max(holding.newest_ms or 0, message.timestamp()[1])
        if older_end.take(message, is_theirs=count > 0):
            holding.removable += count
    if spec.role is Role.SUPPRESSIONS:
        # Of several records with one key the newest stays.
        holding.entries = min(holding.entries, 1)
    holding.below = older_end.below
    return holding


class _OlderEnd:
    """The older end of each partition, as far as it is only one visitor's."""

    def __init__(self, spec: TopicSpec, spans: Mapping[int, Span], committed: Mapping[int, int]) -> None:
        # A restart needs the ledger's records, whoever they are about; a suppression must stay to be effective.
        self._open = set() if spec.role in (Role.LEDGER, Role.SUPPRESSIONS) else set(spans)
        self._is_events = spec.role is Role.EVENTS
        self._committed = committed
        self.below: dict[int, int] = {}

    def take(self, message: Message, *, is_theirs: bool) -> bool:
        """Take the next message of a partition; returns whether it can be deleted."""
        number, offset = message.partition(), message.offset()
        assert number is not None and offset is not None  # noqa: PT018, S101 - of a message that came
        if number not in self._open:
            return False
        is_settled = not self._is_events or offset < self._committed.get(number, 0)
        if not (is_theirs and is_settled):
            self._open.discard(number)
            return False
        self.below[number] = offset + 1
        return True
