"""`flagpost topics create`: creates the topics, and reports what does not fit in existing ones.

In: settings, the number of partitions and replicas. Out: a line for each topic (or one JSON document), exit code 1 if
a topic does not fit or could not be created. Run again, it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.groups import HelpfulGroup
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.commands.topics.rules import (
    DEFAULT_PARTITIONS,
    DEFAULT_REPLICATION,
    Misfit,
    TopicRules,
    TopicSpec,
    topic_specs,
)
from flagpost_consumer.settings import Needs
from flagpost_consumer.terminal.echo import Coloured, echo, echo_json

CREATED = "created"
EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class TopicReport:
    """The result for one topic."""

    name: str
    action: str
    state: str
    misfits: tuple[Misfit, ...] = ()

    def as_json(self) -> dict[str, object]:
        """A member of the document's `topics`."""
        problems = [{"detail": misfit.detail, "fix": misfit.fix} for misfit in self.misfits]
        return {"name": self.name, "action": self.action, "state": self.state, "problems": problems}


@click.group(cls=HelpfulGroup)
def topics() -> None:
    """Create the topics in Kafka."""


@topics.command()
@click.option(
    "--partitions",
    type=click.IntRange(1),
    default=DEFAULT_PARTITIONS,
    show_default=True,
    help="Partitions of each topic.",
)
@click.option(
    "--replication",
    type=click.IntRange(1),
    help=f"Replicas of each partition.  [default: {DEFAULT_REPLICATION}, or the number of brokers if smaller]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def create(settings_for: SettingsLoader, partitions: int, replication: int | None, *, as_json: bool) -> None:
    """Create the topics that do not exist; check those that do.

    With three replicas or more, a write needs two of them (min.insync.replicas=2).
    """
    settings = settings_for(Needs.KAFKA | Needs.WEBHOOK_TOPIC)
    rules = TopicRules(settings, partitions)
    try:
        admin = KafkaAdmin(settings.kafka)
        replicas = replication or min(DEFAULT_REPLICATION, admin.brokers(settings.kafka.topic))
        reports = _create(admin, topic_specs(settings), rules, partitions, replicas)
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
    fits = not any(report.misfits for report in reports)
    if as_json:
        told = [report.as_json() for report in reports]
        echo_json({"ok": fits, "replication": replicas, "topics": told})
    else:
        _print(reports)
    if replication is None and replicas < DEFAULT_REPLICATION:
        _tell_fewer(reports, replicas)
    raise SystemExit(0 if fits else 1)


def _create(
    admin: KafkaAdmin, specs: tuple[TopicSpec, ...], rules: TopicRules, partitions: int, replication: int
) -> list[TopicReport]:
    names = [spec.name for spec in specs]
    existing = admin.states(names)
    created = {
        spec.name
        for spec in specs
        if spec.name not in existing and admin.create(spec, partitions, replication)
    }
    found = admin.awaited_states(names)
    misfits = rules.misfits(found)
    return [
        TopicReport(
            spec.name,
            CREATED if spec.name in created else EXISTS,
            str(found[spec.name]),
            tuple(misfit for misfit in misfits if misfit.topic == spec.name),
        )
        for spec in specs
    ]


def _print(reports: list[TopicReport]) -> None:
    for report in reports:
        echo(f"{report.action} {report.name}: {report.state}")
        for misfit in report.misfits:
            echo(Coloured(f"  does not fit: it {misfit.detail}", "red"))
            echo(f"  to fix it: {misfit.fix}")


def _tell_fewer(reports: list[TopicReport], replicas: int) -> None:
    created = [report.name for report in reports if report.action == CREATED]
    if created:
        brokers = "1 broker" if replicas == 1 else f"{replicas} brokers"
        replicas_text = "1 replica" if replicas == 1 else f"{replicas} replicas"
        echo(
            f"Kafka has {brokers}, so each new partition has {replicas_text}. With {DEFAULT_REPLICATION}, no "
            "write is lost when a broker is lost: see docs/topics.md on adding replicas",
            err=True,
        )
