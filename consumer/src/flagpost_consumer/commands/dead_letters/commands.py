"""The commands `flagpost dead-letters list`, `show` and `replay`.

In: options, settings. Out: the result on stdout, progress and remarks on stderr; exit code 1 if Kafka (or what else
is needed) does not answer, 2 for settings.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.dead_letters.delivered import LedgerUnreadable
from flagpost_consumer.commands.dead_letters.reading import Filters, NoSuchDeadLetter, Scan, find
from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.dead_letters.replaying import Interrupted, Run
from flagpost_consumer.commands.dead_letters.selecting import Selection, oldest_first
from flagpost_consumer.commands.dead_letters.transactions import ReplayProducer
from flagpost_consumer.commands.dead_letters.views import found_as_json, letter_as_json, lines, print_table
from flagpost_consumer.commands.groups import HelpfulGroup
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.explaining import explained
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.settings import KafkaSettings, Needs
from flagpost_consumer.terminal.asking import confirmed
from flagpost_consumer.terminal.echo import echo, echo_json
from flagpost_consumer.terminal.interrupts import noted_interrupts
from flagpost_consumer.terminal.times import MOMENT, TIME_FORMS, require_order

REASONS = [reason.value for reason in Reason if reason.outcome is Outcome.DEAD_LETTERED]
SHOWN_PLACES = 10
"""How many of the dead letters that were skipped for one reason are named."""

FILTER_OPTIONS = (
    click.option(
        "--reason",
        "reasons",
        type=click.Choice(REASONS),
        multiple=True,
        help="Only this reason. May be repeated.",
    ),
    click.option("--since", type=MOMENT, help=f"Only dead letters written since: {TIME_FORMS}."),
    click.option("--until", type=MOMENT, help="Only dead letters written before, in the same forms."),
    click.option("--visitor", help="Only records with this key: the id of the visitor (or the account)."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest first."),
)


class PlaceParameter(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """A dead letter's partition and offset, as `list` shows them."""

    name = "place"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Anything else is a usage error."""
        try:
            return Place.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def filtering(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select dead letters to a command, as `filters` and `limit`."""

    @wraps(command)
    def with_filters(
        *given: object,
        reasons: tuple[str, ...],
        since: int | None,
        until: int | None,
        visitor: str | None,
        **others: object,
    ) -> None:
        require_order(since, until)
        filters = Filters(reasons=frozenset(reasons), since=since, until=until, visitor=visitor)
        command(*given, filters=filters, **others)

    for option in reversed(FILTER_OPTIONS):
        with_filters = option(with_filters)
    return with_filters


@click.group("dead-letters", cls=HelpfulGroup)
def dead_letters() -> None:
    """List, show and replay what could not be delivered."""


@dead_letters.command("list")
@filtering
@click.option("--all", "with_replayed", is_flag=True, help="Also list dead letters that were replayed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
@click.pass_obj
def list_letters(
    settings_for: SettingsLoader, *, filters: Filters, limit: int | None, with_replayed: bool, as_json: bool
) -> None:
    """List dead letters that were not replayed, the oldest first."""
    kafka = settings_for(Needs.KAFKA).kafka
    with _explained(), TopicReader(kafka) as reader:
        scan = Scan(reader, kafka.dead_letter_topic)
        matching = sorted((letter for letter, _ in scan.letters(filters)), key=oldest_first)
    waiting = [letter for letter in matching if letter.place not in scan.replayed]
    shown = (matching if with_replayed else waiting)[:limit]
    if as_json:
        for letter in shown:
            echo_json(letter_as_json(letter, replayed=letter.place in scan.replayed))
    elif shown:
        print_table(shown, scan.replayed)
    replayed = len(matching) - len(waiting)
    echo(
        f"{len(shown):,} shown of {len(matching):,} that match; {replayed:,} of them were replayed", err=True
    )
    _tell_foreign(scan.foreign)


@dead_letters.command()
@click.argument("place", metavar="PARTITION/OFFSET", type=PlaceParameter())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def show(settings_for: SettingsLoader, place: Place, *, as_json: bool) -> None:
    """Show a dead letter with its headers and its value, decoded if possible."""
    kafka = settings_for(Needs.KAFKA).kafka
    with _explained(), TopicReader(kafka) as reader:
        found = find(reader, kafka.dead_letter_topic, place)
    values = Values(kafka.schema_registry)
    if as_json:
        echo_json(found_as_json(found, values))
    else:
        for line in lines(found, values):
            echo(line)


@dead_letters.command()
@filtering
@click.option("--dry-run", is_flag=True, help="Show what would be replayed, and write nothing.")
@click.option("--yes", is_flag=True, help="Replay everything without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def replay(
    settings_for: SettingsLoader,
    *,
    filters: Filters,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write the original records back to the events topic, each once.

    Without an option that selects, every dead letter is replayed; on a terminal you are asked first.

    Skipped, and listed with the reason: track events of which a duplicate was delivered, or that are too old for
    Pendo; anything about suppressed visitors; dead letters that cannot be read. After an interruption, run it again.
    """
    settings = settings_for(Needs.KAFKA)
    with _explained(), TopicReader(settings.kafka) as reader:
        run = Run(settings, reader)
        if dry_run:
            run.choose(filters, limit)
        else:
            is_everything = filters == Filters() and limit is None
            _carry_out(run, settings.kafka, filters, limit, asks=is_everything and not yes)
    if as_json:
        counts = {"matched": run.matched, "replayed": run.replayed, "skipped": run.selection.skips}
        echo_json({**counts, "dry_run": dry_run})
    else:
        _tell(run, dry_run=dry_run)
    _tell_skipped(run.selection, err=as_json)
    _tell_foreign(run.foreign)
    if run.damaged:
        damaged = f"records of the ledger that cannot be read: {run.damaged:,}"
        echo(f"{damaged}; what they record as delivered may be sent again", err=True)


def _carry_out(run: Run, kafka: KafkaSettings, filters: Filters, limit: int | None, *, asks: bool) -> None:
    producer = ReplayProducer(kafka)
    producer.open()
    run.choose(filters, limit)
    chosen = len(run.selection.replays)
    if (
        asks
        and chosen
        and not confirmed(f"Replay everything: {chosen:,} dead letters of all reasons and times?")
    ):
        raise click.ClickException(
            "nothing was replayed; to select, use --reason, --since, --until, --visitor or --limit"
        )
    try:
        with noted_interrupts() as interrupted:
            run.carry_out(producer, interrupted)
    except KafkaUnavailable as error:
        raise KafkaUnavailable(f"{error}. {_so_far(run)}") from None
    except Interrupted:
        raise click.ClickException(f"interrupted. {_so_far(run)}") from None


def _so_far(run: Run) -> str:
    return (
        f"{run.replayed:,} of {run.matched:,} dead letters were replayed and are marked; "
        "run the command again for the others"
    )


def _tell(run: Run, *, dry_run: bool) -> None:
    if dry_run:
        would = len(run.selection.replays)
        echo(f"{would:,} of {run.matched:,} dead letters would be replayed; nothing was written")
    else:
        echo(f"{run.replayed:,} of {run.matched:,} dead letters were replayed")


def _tell_skipped(selection: Selection, *, err: bool) -> None:
    for why, places in selection.skipped.items():
        more = f" and {len(places) - SHOWN_PLACES:,} more" if len(places) > SHOWN_PLACES else ""
        named = ", ".join(map(str, places[:SHOWN_PLACES]))
        echo(f"skipped {len(places):,}: {why.value}: {named}{more}", err=err)


def _tell_foreign(count: int) -> None:
    if count:
        echo(f"records without Flagpost's headers were ignored: {count:,}", err=True)


def _explained() -> AbstractContextManager[None]:
    """Report what is needed but not available in one line, with exit code 1."""
    return explained("value", LedgerUnreadable, NoSuchDeadLetter)
