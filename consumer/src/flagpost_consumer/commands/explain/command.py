"""`flagpost explain`: why a visitor's events are, or are not, in Pendo.

In: settings, a visitor's id. Out: one page or one JSON document on stdout; exit code 1 if Kafka has nothing of the
visitor. It only reads: it joins no group, commits nothing, and only asks Pendo what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.explain.document import Explanation, as_document
from flagpost_consumer.commands.explain.finding import Finder, Found
from flagpost_consumer.commands.explain.page import show
from flagpost_consumer.commands.explain.pendo import AtPendo, PendoNotTelling, ask_pendo, compare
from flagpost_consumer.commands.explain.stories import State, Story, tell
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.commands.explain.waiting import Surroundings, waits
from flagpost_consumer.commands.privacy.visitor_argument import VISITOR
from flagpost_consumer.commands.reconcile.asking import window_explained
from flagpost_consumer.commands.sources.consumer_state import ConsumerState, admin_urls, ask_consumers
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions
from flagpost_consumer.settings import Needs, Settings, keyed_policy, ledger_ids
from flagpost_consumer.terminal.echo import echo, echo_json
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS, require_order
from flagpost_settings.urls import http_url

CONSUMERS_SECONDS = 1.0
"""How long consumers may take to answer; usually they cannot be reached from here."""


class AdminUrl(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """The address of a consumer's admin port."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The URL; anything else is a usage error."""
        if http_url(str(value)) is None:
            self.fail(f"{value!r} is not a URL: give one like http://10.0.3.7:8080", param, ctx)
        return str(value)


@click.command()
@click.argument("visitor", type=VISITOR)
@click.option("--event-id", help="Only the event with this id.")
@click.option("--since", type=MOMENT, help=f"Only events published since: {TIME_FORMS}.")
@click.option("--account", "is_account", is_flag=True, help="VISITOR is the id of an account.")
@click.option(
    "--all-partitions", is_flag=True, help="Read every partition, to find mispartitioned records as well."
)
@click.option(
    "--admin",
    type=AdminUrl(),
    multiple=True,
    help="The admin address of a consumer, like http://10.0.3.7:8080: its /status is read. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def explain(  # noqa: PLR0913 - one for each option
    settings_for: SettingsLoader,
    visitor: str,
    event_id: str | None,
    since: int | None,
    admin: tuple[str, ...],
    *,
    is_account: bool,
    all_partitions: bool,
    as_json: bool,
) -> None:
    """Show what happened to each event of VISITOR, what is waiting and why, and what Pendo has.

    VISITOR is the visitor id, or the anonymous id, as it is in the events. Exit code 1 if nothing is found.
    """
    require_order(since)
    settings = settings_for(Needs.KAFKA)
    subject = Subject.of(visitor, ledger_ids(settings), is_account=is_account)
    with window_explained(), TopicReader(settings.kafka) as reader:
        found = Finder(reader, settings, subject).find(since, everywhere=all_partitions)
    explanation = explanation_of(settings, subject, found, admin, event_id, _ask_pendo(settings, subject))
    for told in explanation.unheard:
        echo(f"--admin {told}", err=True)
    if as_json:
        echo_json(as_document(explanation))
    else:
        show(explanation)
    raise SystemExit(1 if explanation.is_empty else 0)


def explanation_of(
    settings: Settings,
    subject: Subject,
    found: Found,
    admin: Sequence[str],
    event_id: str | None,
    pendos_word: tuple[AtPendo | None, str],
) -> Explanation:
    """Everything that is known of what was found; asks consumers, and blocks meanwhile.

    `pendos_word`: what Pendo has, or why it is not known.
    """
    now_ms = time.time_ns() // 1_000_000
    everything = tell(found, _planner(settings, subject, found), now_ms)
    consumers: list[ConsumerState] = []
    held, unheard = None, []
    if _is_anything_pending(everything):
        urls = admin_urls(admin, settings.admin)
        consumers = asyncio.run(
            ask_consumers(
                urls,
                settings.kafka.group_id,
                CONSUMERS_SECONDS,
                lambda url, why: unheard.append(f"{url}/status: {why}"),
            )
        )
        held = _held(settings, found)
    around = Surroundings(now_ms, settings.delivery, settings.metadata.linger_seconds, consumers, held)
    at_pendo, error = pendos_word
    stories = [story for story in everything if event_id in (None, story.event_id)]
    return Explanation(
        subject,
        settings.kafka.topic,
        found,
        stories,
        waits(everything, around),  # earlier deliveries hold up later ones, even if only some were asked for
        consumers,
        at_pendo,
        [] if at_pendo is None else compare(stories, subject, at_pendo),
        error,
        unheard if admin else (),  # an address that nobody gave may be nobody's
    )


def _planner(settings: Settings, subject: Subject, found: Found) -> Planner:
    """A planner like the consumers', with what is known of the visitor."""
    suppressions = Suppressions()
    if found.is_suppressed:
        suppressions.take([Suppression(subject.id, is_suppressed=True)])
    return Planner(keyed_policy(settings), suppressions)


def _is_anything_pending(stories: Iterable[Story]) -> bool:
    return any(delivery.state is State.PENDING for story in stories for delivery in story.deliveries)


def _held(settings: Settings, found: Found) -> dict[int, bool] | None:
    """Which partitions a member of the group has; None: Kafka does not tell."""
    try:
        assigned = KafkaAdmin(settings.kafka).assigned(settings.kafka.group_id, settings.kafka.topic)
    except KafkaUnavailable:
        return None
    return {number: number in assigned for number in found.partitions}


def _ask_pendo(settings: Settings, subject: Subject) -> tuple[AtPendo | None, str]:
    """What Pendo has, or why it is not known. Without an integration key Pendo is not asked."""
    if settings.pendo.integration_key_source is None:
        return None, ""
    try:
        return asyncio.run(ask_pendo(settings.pendo, subject)), ""
    except PendoNotTelling as error:
        return None, str(error)
