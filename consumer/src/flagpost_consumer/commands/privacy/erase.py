"""`flagpost erase`: what Flagpost's topics hold of a visitor, until when, and away with what Kafka can delete.

In: a visitor's id. Out: a line a topic, or one JSON document. Nothing is written; what is deleted lies at the older
end of a partition and is the visitor's alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf
from typing import Any

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.privacy.holdings import Holding, find
from flagpost_consumer.commands.privacy.suppressed import read_suppressions
from flagpost_consumer.commands.privacy.traces import traces_of
from flagpost_consumer.commands.privacy.visitor_argument import VISITOR
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.explaining import explained
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.commands.topics.rules import Role, days, topic_specs
from flagpost_consumer.settings import Needs, Settings, ledger_ids
from flagpost_consumer.terminal.echo import echo, echo_json
from flagpost_kafka.rights import Operation

NOT_SUPPRESSED = (
    "The visitor is not suppressed: new events about it are still accepted. Run flagpost suppress first."
)
NOT_DELETED = (
    "Kafka cannot delete single records: records that lie between those of other visitors stay until the topic's "
    "retention deletes them, at the times above."
)


@click.command()
@click.argument("visitor", type=VISITOR)
@click.option("--dry-run", is_flag=True, help="Show what there is, and delete nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def erase(settings_for: SettingsLoader, visitor: str, *, dry_run: bool, as_json: bool) -> None:
    """Show what the topics hold about VISITOR and until when, and delete the part that Kafka can delete.

    Kafka can only delete from the old end of a partition: records there are deleted up to the first one that is not
    this visitor's, and on the events topic only if they are settled. The rest is deleted when the topic's retention
    has passed.
    """
    settings = settings_for(Needs.KAFKA | Needs.WEBHOOK_TOPIC)
    with explained("value"):
        is_suppressed, holdings = _look(settings, visitor)
        if not dry_run:
            _delete(settings, holdings)
    if as_json:
        echo_json(_document(holdings, is_suppressed=is_suppressed, dry_run=dry_run))
    else:
        for line in _lines(holdings, is_suppressed=is_suppressed, dry_run=dry_run):
            echo(line)


def _look(settings: Settings, visitor: str) -> tuple[bool, list[Holding]]:
    kafka = settings.kafka
    specs = [
        spec for spec in topic_specs(settings) if spec.role is not Role.IMPRESSIONS
    ]  # it has no visitors
    states = KafkaAdmin(kafka).states((spec.name for spec in specs), Operation.READ)
    traces = traces_of(visitor, Values(kafka.schema_registry), ledger_ids(settings))
    with TopicReader(kafka) as reader:
        is_suppressed = read_suppressions(reader, kafka.suppressions_topic).hold(visitor)
        committed: dict[int, int] = {}
        if kafka.topic in states:
            commits = reader.committed(kafka.topic, reader.spans(kafka.topic))
            committed = {number: each.offset for number, each in commits.items()}
        holdings = [find(reader, spec, states.get(spec.name), traces[spec.role], committed) for spec in specs]
    for holding in holdings:
        if holding.spec.role is Role.SUPPRESSIONS and not is_suppressed:
            holding.entries, holding.newest_ms = 0, None  # compaction removes what is left
    return is_suppressed, holdings


def _delete(settings: Settings, holdings: list[Holding]) -> None:
    admin = KafkaAdmin(settings.kafka)
    for holding in holdings:
        if holding.below:
            admin.delete_below(holding.spec.name, holding.below)
            holding.removed = holding.removable


def _document(holdings: list[Holding], *, is_suppressed: bool, dry_run: bool) -> dict[str, Any]:
    topics = [
        {
            "topic": each.spec.name,
            "exists": each.state is not None,
            "entries": each.entries,
            "newest_at": each.newest_ms,
            "removable": each.removable,
            "removed": each.removed,
            "gone_by": None if each.gone_by_ms in (None, inf) else int(each.gone_by_ms or 0),
        }
        for each in holdings
    ]
    return {"suppressed": is_suppressed, "dry_run": dry_run, "topics": topics}


def _lines(holdings: list[Holding], *, is_suppressed: bool, dry_run: bool) -> Iterator[str]:
    if not is_suppressed:
        yield NOT_SUPPRESSED
    for each in holdings:
        yield f"{each.spec.name}: {_story(each, dry_run=dry_run)}"
    if any(each.gone_by_ms not in (None, inf) for each in holdings):
        yield NOT_DELETED
    yield "Data in Pendo must be deleted in Pendo, and data in the publishing services there."


def _story(holding: Holding, *, dry_run: bool) -> str:
    if holding.state is None:
        return "no such topic"
    if not holding.entries:
        return "nothing"
    what = "settlements" if holding.spec.role is Role.LEDGER else "records"
    told = [f"{holding.entries:,} {what}, the newest of {_moment(holding.newest_ms or 0)}"]
    if holding.removable:
        told.append(f"{holding.removable:,} {'can be deleted' if dry_run else 'deleted'}")
    told.append(_until(holding))
    return "; ".join(text for text in told if text)


def _until(holding: Holding) -> str:
    """Until when the rest exists."""
    gone_by, state = holding.gone_by_ms, holding.state
    if gone_by is None or state is None:
        return ""
    if holding.spec.role is Role.SUPPRESSIONS:
        return "kept as long as the visitor is suppressed"
    if gone_by == inf:
        return "kept for ever: give the topic a retention"
    kept = f"kept {days(state.retention_ms)}, and {days(state.segment_ms)} for its segment"
    return f"gone by {_moment(gone_by)} ({kept})"


def _moment(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
