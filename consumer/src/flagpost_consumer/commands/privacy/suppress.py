"""`flagpost suppress`: nothing of a visitor is sent any more, or again.

In: a visitor's id. Out: one record of the suppressions topic, acknowledged by every replica in sync; consumers follow
the topic, and read all of it when they start.
"""

from __future__ import annotations

import time

import click
from confluent_kafka import KafkaError, Message, Producer

from flagpost_consumer.adapters.kafka.config import producer_config
from flagpost_consumer.adapters.kafka.suppression_records import suppression_value
from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.privacy.suppressed import read_spans
from flagpost_consumer.commands.privacy.visitor_argument import VISITOR
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable, unavailable
from flagpost_consumer.commands.sources.kafka_clients import silent_client
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.planning.suppressions import Suppression, TooManySuppressions
from flagpost_consumer.core.planning.visitor_names import other_name
from flagpost_consumer.settings import KafkaSettings, Needs
from flagpost_consumer.terminal.echo import echo_lines
from flagpost_kafka import rights

WRITE_SECONDS = 30


@click.command()
@click.argument("visitor", type=VISITOR)
@click.option("--undo", is_flag=True, help="Send the visitor's events again, from now on.")
@click.pass_obj
def suppress(settings_for: SettingsLoader, visitor: str, *, undo: bool) -> None:
    """Stop sending anything about VISITOR: events are dropped, and dead letters are not replayed.

    Consumers apply it within a second. What is waiting then is dropped; a request already on its way to Pendo still
    arrives. Data that Pendo already has must be deleted in Pendo.
    """
    kafka = settings_for(Needs.KAFKA).kafka
    try:
        was_suppressed, is_suppressed = _fits(kafka, visitor, undo=undo)
        _write(kafka, visitor, None if undo else suppression_value(time.time_ns() // 1_000_000))
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    if undo and is_suppressed:
        raise click.ClickException(
            f"the visitor is still suppressed as {other_name(visitor)}: undo that one as well"
        )
    echo_lines(_told(undo=undo, was_suppressed=was_suppressed))


def _fits(kafka: KafkaSettings, visitor: str, *, undo: bool) -> tuple[bool, bool]:
    """Whether the visitor was suppressed before, and will be; also checks that one more fits.

    Raises:
        KafkaUnavailable: the topic does not exist, cannot be read, or is full: with one more, consumers would stop.
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

    # An idempotent producer may report a missing right as a fatal error, which flush() raises as a SystemError. One
    # record needs no idempotence: written twice, it says the same.
    own = {"message.timeout.ms": WRITE_SECONDS * 1000, "enable.idempotence": False}
    producer = silent_client(Producer, {**producer_config(kafka), **own})
    producer.produce(topic, value, visitor.encode(), on_delivery=reported)
    left = producer.flush(WRITE_SECONDS + 5)
    for error in refusals:
        raise unavailable(str(kafka.bootstrap_servers), rights.named(error, rights.writes(topic)))
    if left:
        raise KafkaUnavailable(
            f"{topic}: no answer for {WRITE_SECONDS} s; it is not known whether this was written: run it again"
        )


def _told(*, undo: bool, was_suppressed: bool) -> str:
    if undo:
        before = "is no longer suppressed" if was_suppressed else "was not suppressed"
        return f"The visitor {before}. Events that were dropped meanwhile are not sent later."
    before = "is suppressed" if not was_suppressed else "was already suppressed"
    return (
        f"The visitor {before}: consumers drop its events, also those that are waiting.\n"
        "To see what Flagpost's topics still hold, and until when: flagpost erase VISITOR --dry-run.\n"
        "Data that Pendo already has must be deleted in Pendo."
    )
