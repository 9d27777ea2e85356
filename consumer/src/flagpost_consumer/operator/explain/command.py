"""`flagpost explain`: why a visitor's events are, or are not, in Pendo.

In: settings, a visitor's id. Out: one page or one JSON document on stdout; exit code 1 where Kafka has nothing of the
visitor. Reads only: it joins no group, commits nothing, and asks Pendo for nothing but what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import click

from flagpost_consumer.core.plan import Planner
from flagpost_consumer.core.suppressions import Suppression, Suppressions
from flagpost_consumer.operator.cli import SettingsLoader
from flagpost_consumer.operator.consumer_state import ConsumerState, admin_urls, ask_consumers
from flagpost_consumer.operator.explain.document import Explanation, as_document
from flagpost_consumer.operator.explain.finding import Finder, Found
from flagpost_consumer.operator.explain.page import show
from flagpost_consumer.operator.explain.pendo import AtPendo, PendoNotTelling, ask_pendo, compare
from flagpost_consumer.operator.explain.stories import State, Story, tell
from flagpost_consumer.operator.explain.subject import Subject
from flagpost_consumer.operator.explain.waiting import Surroundings, waits
from flagpost_consumer.operator.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.operator.privacy.visitor_argument import VISITOR
from flagpost_consumer.operator.reconciliation.asking import window_explained
from flagpost_consumer.operator.terminal import echo_json
from flagpost_consumer.operator.times import MOMENT
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import Needs, Settings, keyed_policy, ledger_ids
from flagpost_settings.urls import http_url

CONSUMERS_SECONDS = 1.0
"""How long consumers may take to answer; from most places they cannot be reached."""


class AdminUrl(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """The address of a consumer's admin port."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The URL; what is none is a usage error."""
        if http_url(str(value)) is None:
            self.fail(f"{value!r} is no URL: give one like http://10.0.3.7:8080", param, ctx)
        return str(value)


@click.command()
@click.argument("visitor", type=VISITOR)
@click.option("--event-id", help="Only the event with this id.")
@click.option("--since", type=MOMENT, help="Only what was published since: 10m, 2h, 7d ago, or RFC 3339.")
@click.option("--account", "is_account", is_flag=True, help="VISITOR is an account's id.")
@click.option(
    "--all-partitions", is_flag=True, help="Find mispartitioned records, too: read every partition."
)
@click.option(
    "--admin",
    type=AdminUrl(),
    multiple=True,
    help="Where a consumer's /status is, like http://10.0.3.7:8080. May be repeated.",
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
    """Tell what became of each event of VISITOR, what waits and why, and what Pendo has.

    VISITOR may be the id of an anonymous visitor as the events have it. Exit code 1 if nothing is found.
    """
    settings = settings_for(Needs.KAFKA)
    subject = Subject.of(visitor, ledger_ids(settings), is_account=is_account)
    with window_explained(), TopicReader(settings.kafka) as reader:
        found = Finder(reader, settings, subject).find(since, everywhere=all_partitions)
    explanation = explanation_of(settings, subject, found, admin, event_id, _ask_pendo(settings, subject))
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
    """All that is known of what was found; asks consumers, and blocks meanwhile.

    `pendos_word`: what Pendo has, or why it is not known.
    """
    now_ms = time.time_ns() // 1_000_000
    everything = tell(found, _planner(settings, subject, found), now_ms)
    consumers: list[ConsumerState] = []
    held = None
    if _is_anything_pending(everything):
        urls = admin_urls(admin, settings.admin)
        consumers = asyncio.run(ask_consumers(urls, settings.kafka.group_id, CONSUMERS_SECONDS))
        held = _held(settings, found)
    around = Surroundings(now_ms, settings.delivery, settings.metadata.linger_seconds, consumers, held)
    at_pendo, error = pendos_word
    stories = [story for story in everything if event_id in (None, story.event_id)]
    return Explanation(
        subject,
        settings.kafka.topic,
        found,
        stories,
        waits(everything, around),  # what is before a delivery holds it, whether it is asked for or not
        consumers,
        at_pendo,
        [] if at_pendo is None else compare(stories, subject, at_pendo),
        error,
    )


def _planner(settings: Settings, subject: Subject, found: Found) -> Planner:
    """Plans as the consumers do, with what is known of the visitor."""
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
    """What Pendo has; or why it is not known. Without an integration key it is not asked."""
    if settings.pendo.integration_key_source is None:
        return None, ""
    try:
        return asyncio.run(ask_pendo(settings.pendo, subject)), ""
    except PendoNotTelling as error:
        return None, str(error)
