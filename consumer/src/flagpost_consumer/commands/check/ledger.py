"""Whether the ledger topic holds only this group's settlements of this events topic.

In: settings; the newest record of each ledger partition. Out: a check. Two groups with one ledger would settle,
restore and reconcile wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable

from flagpost_consumer.adapters.kafka.topic_ids import read_topic_id
from flagpost_consumer.commands.check.results import Check, fail, ok, warn
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements, UndecodableRecord, UnknownSchema, decode_settlements

NAME = "ledger"


def check_ledger(kafka: KafkaSettings) -> Check:
    """Look at the newest records of the ledger."""
    try:
        values = _newest_values(kafka)
    except KafkaUnavailable as error:
        return fail(NAME, str(error), "let this client read the ledger topic")
    return judge_ledger(kafka, values, read_topic_id(kafka.client_properties(), kafka.topic))


def judge_ledger(kafka: KafkaSettings, values: Iterable[bytes | None], topic_id: str | None) -> Check:
    """Judge the ledger by some of its records; `topic_id` is the events topic's, if known."""
    records: list[Settlements] = []
    damage: UndecodableRecord | None = None
    for value in values:
        try:
            records.append(decode_settlements(value))
        except UnknownSchema as error:
            return fail(NAME, str(error), "run the release that wrote it, or a later one")
        except UndecodableRecord as error:
            damage = error
    return _of_others(kafka, records) or _of_records(kafka, records, topic_id, damage)


def _of_others(kafka: KafkaSettings, records: Iterable[Settlements]) -> Check | None:
    others = sorted({record.group for record in records} - {kafka.group_id})
    if not others:
        return None
    whose = ", ".join(others)
    detail = f"{kafka.ledger_topic} holds settlements of the group {whose}, not only of {kafka.group_id}"
    return fail(NAME, detail, "give each group its own ledger: set kafka.ledger_topic or kafka.group_id")


def _of_records(
    kafka: KafkaSettings,
    records: Iterable[Settlements],
    topic_id: str | None,
    damage: UndecodableRecord | None,
) -> Check:
    """Judge a ledger that is only this group's."""
    if damage is not None:
        fix = f"make sure that only Flagpost writes to {kafka.ledger_topic}"
        return warn(NAME, f"a record cannot be read and is skipped: {damage}", fix)
    topic_ids = {record.topic_id for record in records} - {None}
    if topic_id is None or topic_ids <= {topic_id}:
        return ok(NAME, f"{kafka.ledger_topic} belongs to the group {kafka.group_id}")
    earlier = f"settlements of an earlier topic {kafka.topic} that was deleted; they are ignored"
    if topic_id in topic_ids:
        return ok(
            NAME, f"{kafka.ledger_topic} belongs to the group {kafka.group_id}; it also holds {earlier}"
        )
    detail = f"{kafka.ledger_topic} holds only {earlier}"
    return warn(NAME, detail, "nothing, if the topic was recreated on purpose")


def _newest_values(kafka: KafkaSettings) -> list[bytes | None]:
    with TopicReader(kafka) as reader:
        spans = reader.spans(kafka.ledger_topic)
        newest = {number: Span(max(span.first, span.end - 1), span.end) for number, span in spans.items()}
        return [message.value() for message in reader.read(kafka.ledger_topic, newest)]
