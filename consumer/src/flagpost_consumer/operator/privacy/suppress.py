"""`flagpost suppress`: nothing of a visitor is sent any more, or again.

In: a visitor's id. Out: one record of the suppressions topic, acknowledged by every replica in sync; consumers follow
the topic, and read all of it when they start.
"""

from __future__ import annotations

import time

import click
from confluent_kafka import KafkaError, Message, Producer

from flagpost_consumer.adapters.kafka_config import producer_config
from flagpost_consumer.adapters.suppression_records import suppression_value
from flagpost_consumer.core.suppressions import Suppression, TooManySuppressions
from flagpost_consumer.core.visitor_names import other_name
from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.kafka_admin import KafkaUnavailable, unavailable
from flagpost_consumer.operator.kafka_clients import silent_client
from flagpost_consumer.operator.privacy.suppressed import read_spans
from flagpost_consumer.operator.privacy.visitor_argument import VISITOR
from flagpost_consumer.operator.terminal import echo_lines
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings, Needs
from flagpost_kafka import rights

WRITE_SECONDS = 30


@click.command()
@click.argument("visitor", type=VISITOR)
@click.option("--undo", is_flag=True, help="Send the visitor's events again, from now on.")
@click.pass_obj
def suppress(settings_for: SettingsLoader, visitor: str, *, undo: bool) -> None:
    """Send nothing of VISITOR any more: events are dropped, and dead letters are not replayed.

    Consumers hear of it within a second. A request that is on its way to Pendo just then still arrives; what waits is
    dropped. What Pendo has already is Pendo's to delete.
    """
    kafka = settings_for(Needs.KAFKA).kafka
    try:
        was_suppressed, is_suppressed = _fits(kafka, visitor, undo=undo)
        _write(kafka, visitor, None if undo else suppression_value(time.time_ns() // 1_000_000))
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    if undo and is_suppressed:
        raise click.ClickException(
            f"the visitor is still suppressed as {other_name(visitor)}: undo that as well"
        )
    echo_lines(_told(undo=undo, was_suppressed=was_suppressed))


def _fits(kafka: KafkaSettings, visitor: str, *, undo: bool) -> tuple[bool, bool]:
    """Whether the visitor was suppressed before, and will be; that one more fits is seen to.

    Raises:
        KafkaUnavailable: the topic is not there, cannot be read, or is full: with one more, consumers would stop.
    """
    topic = kafka.suppressions_topic
    with TopicReader(kafka) as reader:
        suppressions = read_spans(reader, topic, reader.spans(topic))
    was_suppressed = suppressions.hold(visitor)
    try:
        suppressions.take([Suppression(visitor, is_suppressed=not undo)])
    except TooManySuppressions as error:
        raise KafkaUnavailable(f"{topic}: {error}") from None
    return was_suppressed, suppressions.hold(visitor)


def _write(kafka: KafkaSettings, visitor: str, value: bytes | None) -> None:
    """Raises KafkaUnavailable."""
    topic = kafka.suppressions_topic
    refusals: list[KafkaError] = []

    def reported(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refusals.append(error)

    timeout_ms = {"message.timeout.ms": WRITE_SECONDS * 1000}
    producer = silent_client(Producer, {**producer_config(kafka), **timeout_ms})
    producer.produce(topic, value, visitor.encode(), on_delivery=reported)
    left = producer.flush(WRITE_SECONDS + 5)
    for error in refusals:
        raise unavailable(str(kafka.bootstrap_servers), rights.named(error, rights.writes(topic)))
    if left:
        raise KafkaUnavailable(f"{topic}: no answer for {WRITE_SECONDS} s; nothing is known: run it again")


def _told(*, undo: bool, was_suppressed: bool) -> str:
    if undo:
        before = "is no longer suppressed" if was_suppressed else "was not suppressed"
        return f"The visitor {before}. What was dropped meanwhile is not sent later."
    before = "is suppressed" if not was_suppressed else "was suppressed before, and is"
    return (
        f"The visitor {before}: consumers drop what they read of it, and what waits.\n"
        "What Flagpost's topics still hold, and until when: flagpost erase VISITOR.\n"
        "What Pendo has already is Pendo's to delete."
    )
