"""The JSON of `flagpost explain --json`.

In: what was found. Out: one document; times in epoch ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flagpost_consumer.commands.explain.finding import Found
from flagpost_consumer.commands.explain.pendo import AtPendo, FieldStory
from flagpost_consumer.commands.explain.stories import DeliveryStory, Story
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.commands.explain.waiting import Delivery, Wait
from flagpost_consumer.commands.sources.consumer_state import ConsumerState
from flagpost_consumer.commands.sources.event_values import event_as_json


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is shown."""

    subject: Subject
    topic: str
    found: Found
    stories: Sequence[Story]
    waits: Mapping[Delivery, Wait]
    consumers: Sequence[ConsumerState]
    at_pendo: AtPendo | None
    """None: Pendo was not asked, or did not answer."""
    fields: Sequence[FieldStory] = ()
    pendo_error: str = ""
    """Why Pendo did not answer."""
    unheard: Sequence[str] = ()
    """The addresses given for consumers at which none of the group answered, each with the reason."""

    @property
    def is_empty(self) -> bool:
        """Whether Kafka has nothing of the subject."""
        return not self.stories


def as_document(explanation: Explanation) -> dict[str, Any]:
    """The document."""
    found, subject = explanation.found, explanation.subject
    return {
        subject.target: subject.id,
        "partition": found.homes[0],
        "partitions_read": list(found.partitions),
        "since": found.since_ms,
        "suppressed": found.is_suppressed,
        "records": [_record(story, explanation) for story in explanation.stories],
        "consumers": [each.url for each in explanation.consumers],
        "pendo": _pendo(explanation),
    }


def _record(story: Story, explanation: Explanation) -> dict[str, Any]:
    record, event = story.record, story.event
    return {
        "partition": story.partition,
        "offset": story.offset,
        "mispartitioned": story.partition not in explanation.found.homes,
        "produced_at": None if record is None else record.produced_at,
        "occurred_at": story.occurred_at,
        "event_id": story.event_id,
        "event": None if event is None else event_as_json(event),
        "unreadable": None if record is None else record.unreadable or None,
        "deliveries": [_delivery(story, delivery, explanation) for delivery in story.deliveries],
    }


def _delivery(story: Story, delivery: DeliveryStory, explanation: Explanation) -> dict[str, Any]:
    entry, letter = delivery.entry, delivery.letter
    wait = explanation.waits.get((story.partition, story.offset, delivery.kind))
    return {
        "kind": delivery.kind.value,
        "state": delivery.state.value,
        "reason": delivery.reason,
        "detail": delivery.detail or None,
        "settled_at": delivery.settled_at,
        "attempts": None if entry is None else entry.attempts,
        "unseen": None if entry is None else entry.unseen,
        "status": None if entry is None else entry.status,
        "duplicate_of": None if entry is None else entry.duplicate_of,
        "sent_again": delivery.sent_again,
        "dead_letter": None if letter is None else str(letter.place),
        "replayed": letter is not None and letter.replayed,
        "waits": None if wait is None else {**asdict(wait), "cause": wait.cause.value},
    }


def _pendo(explanation: Explanation) -> dict[str, Any] | None:
    at_pendo = explanation.at_pendo
    if at_pendo is None:
        return {"error": explanation.pendo_error} if explanation.pendo_error else None
    fields = [{**asdict(field), "verdict": field.verdict.value} for field in explanation.fields]
    return {"known": at_pendo.is_known, "metadata": at_pendo.metadata, "fields": fields}
