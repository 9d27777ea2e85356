"""`flagpost tail`: settlements as they happen.

In: the ledger topic, from now on or from a time on; a filter. Out: a line for each settlement on stdout, oldest first
and then as they come; on stderr what was lost or cannot be read. It ends with Ctrl-C, when its reader has gone (`|
head`), with `--until` and with `--no-follow`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
from confluent_kafka import Message

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.reading_by_time import read_by_time
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.settings import KafkaSettings, Needs, ledger_ids
from flagpost_consumer.terminal.echo import Coloured, echo, echo_json
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS, require_order, time_on
from flagpost_schemas import DecodeError, LedgerEntry, Settlements, decode_settlements

COLOURS = {
    Outcome.DELIVERED.value: "green",
    Outcome.DUPLICATE.value: "bright_black",
    Outcome.DROPPED.value: "yellow",
    Outcome.DEAD_LETTERED.value: "red",
}
MAX_ABOUT_CHARACTERS = 300
LONGEST_OUTCOME = max(map(len, COLOURS))

FIELDS = tuple(name for name in LedgerEntry._fields if name != "dedupe_key")
"""The fields of a settlement that are shown; the key is bytes that mean nothing to people."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What to look for; None: anything."""

    visitor_ids: frozenset[str] | None = None
    """All names of the visitor in the ledger."""
    flag_key: str | None = None
    outcome: str | None = None
    reason: str | None = None
    kind: str | None = None

    def fits(self, entry: LedgerEntry) -> bool:
        """Whether a settlement matches."""
        if self.visitor_ids is not None and entry.visitor_id not in self.visitor_ids:
            return False
        wanted = self.flag_key, self.outcome, self.reason, self.kind
        given = entry.flag_key, entry.outcome, entry.reason, entry.kind
        return all(want is None or want == have for want, have in zip(wanted, given, strict=True))


@dataclass(frozen=True, slots=True)
class Window:
    """The window of settlements to show, in epoch ms."""

    since: int | None
    """None: from now on, or all existing ones if none are followed."""
    until: int | None
    follows: bool


@click.command()
@click.option("--visitor", help="Only settlements of this visitor.")
@click.option("--flag", help="Only settlements of this flag.")
@click.option(
    "--outcome", type=click.Choice([outcome.value for outcome in Outcome]), help="Only this outcome."
)
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Only this reason.")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only this kind of delivery.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--since", type=MOMENT, help=f"Start at this time: {TIME_FORMS}.")
@click.option("--until", type=MOMENT, help="Stop at this time, in the same forms; does not follow.")
@click.option("--no-follow", is_flag=True, help="Print the settlements that exist, and stop.")
@click.pass_obj
def tail(  # noqa: PLR0913  one for each option
    settings_for: SettingsLoader,
    *,
    visitor: str | None,
    flag: str | None,
    outcome: str | None,
    reason: str | None,
    kind: str | None,
    since: int | None,
    until: int | None,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Print settlements as they are written, until Ctrl-C.

    A settlement says how a delivery ended: its outcome and the reason.
    """
    require_order(since, until)
    settings = settings_for(Needs.KAFKA)
    kafka = settings.kafka
    visitor_ids = None if visitor is None else ledger_ids(settings).names_of(visitor)
    sought = Sought(visitor_ids, flag, outcome, reason, kind)
    window = Window(since, until, follows=not no_follow and until is None)
    now_ms = time.time_ns() // 1_000_000
    try:
        for message in _messages(kafka, window):
            for settlements, entry in _settlements(message, kafka.group_id, sought):
                if as_json:
                    echo_json(as_document(message.partition() or 0, settlements.settled_at, entry))
                else:
                    echo(*plain_line(now_ms, message.partition() or 0, settlements.settled_at, entry))
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    except KeyboardInterrupt:
        return


def _messages(kafka: KafkaSettings, window: Window) -> Iterator[Message]:
    topic, now_ms = kafka.ledger_topic, int(time.time() * 1000)
    with TopicReader(kafka) as reader:
        spans = reader.spans(topic)
        if window.since is not None or not window.follows:
            past = reader.within(topic, spans, window.since, window.until)
            yield from read_by_time(reader, topic, past, window.since or 0, window.until or now_ms)
        if window.follows:
            if sys.stderr.isatty():
                echo(f"waiting for settlements on {topic}; Ctrl-C stops", err=True)
            ends = {number: span.end for number, span in spans.items()}
            yield from filter(None, reader.follow({topic: ends}))


def _settlements(message: Message, group: str, sought: Sought) -> Iterator[tuple[Settlements, LedgerEntry]]:
    """The matching settlements in a ledger record."""
    place = f"{message.partition()}/{message.offset()}"
    try:
        settlements = decode_settlements(message.value())
    except DecodeError as error:
        echo(f"ledger record {place} is skipped: {error}", err=True)
        return
    if settlements.group != group:
        return
    for gap in settlements.gaps:
        lost = f"offsets {gap.from_offset} to {gap.to_offset - 1} were lost before they were read"
        echo(f"partition {message.partition()}: {lost}", err=True)
    for entry in settlements.entries:
        if sought.fits(entry):
            yield settlements, entry


def as_document(partition: int, settled_at: int, entry: LedgerEntry) -> dict[str, Any]:
    """A settlement as in docs/contract.md#json-output; times in epoch ms."""
    told: dict[str, Any] = {name: getattr(entry, name) for name in FIELDS}
    return {"partition": partition, "settled_at": settled_at, **told}


def plain_line(
    today_ms: int, partition: int, settled_at: int, entry: LedgerEntry
) -> tuple[str | Coloured, ...]:
    """A settlement for people, in the parts of a line. The time has a date unless it is of the day of `today_ms`."""
    outcome = Coloured(entry.outcome.ljust(LONGEST_OUTCOME), COLOURS.get(entry.outcome))
    place = f"{partition}/{entry.offset}"
    return time_on(today_ms, settled_at), outcome, place, entry.kind, _about(partition, entry)


def _about(partition: int, entry: LedgerEntry) -> str:
    """Whose delivery it was, of what, and why it ended."""
    ended = "" if entry.reason == "ok" else entry.reason
    again = "" if entry.duplicate_of is None else f"of {partition}/{entry.duplicate_of}"
    status = "" if entry.status is None else f"status {entry.status}"
    attempts = f"{entry.attempts} attempts" if entry.attempts > 1 else ""
    what = [entry.visitor_id or entry.account_id, entry.flag_key or entry.event, entry.variation_key]
    told = " ".join(text for text in (*what, ended, again, status, attempts) if text)
    return legible(told, MAX_ABOUT_CHARACTERS)
