"""The page of `flagpost explain` for people, in lines of at most 80 columns.

In: what was found. Out: lines on stdout. Texts from outside are shown without anything that a terminal would obey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import wrap

from flagpost_consumer.commands.explain.document import Explanation
from flagpost_consumer.commands.explain.pendo import FieldStory, Verdict
from flagpost_consumer.commands.explain.stories import DeliveryStory, State, Story
from flagpost_consumer.commands.explain.waiting import Wait
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.terminal.echo import Coloured, echo
from flagpost_consumer.terminal.numbers import count_of
from flagpost_consumer.terminal.times import moment_text
from flagpost_schemas import DecisionEvent, Event, TrackEvent, variation_as_sent

WIDTH = 80
MAX_TEXT_CHARACTERS = 300
MAX_VALUE_CHARACTERS = 60
COLOURS = {
    State.DELIVERED: "green",
    State.DUPLICATE: "bright_black",
    State.DROPPED: "yellow",
    State.PENDING: "cyan",
}
WRONG = "red"
VERDICT_COLOURS = {Verdict.SAME: "green", Verdict.WAITING: "cyan"}
KIND_COLUMNS, STATE_COLUMNS = 16, 13


def show(explanation: Explanation) -> None:
    """Print the page."""
    _show_head(explanation)
    for story in explanation.stories:
        _show_story(story, explanation)
    if explanation.stories:
        _say("")
        _say(_summary(explanation))
    else:
        _say(_nothing(explanation))
    _show_pendo(explanation)


def _show_head(explanation: Explanation) -> None:
    subject, found = explanation.subject, explanation.found
    where = (
        f"partition {_listed(found.homes)}"
        if found.partitions == found.homes
        else f"all {count_of(len(found.partitions), 'partition')}"
    )
    since = "all that Kafka has" if found.since_ms is None else f"since {moment_text(found.since_ms)}"
    echo(Coloured(f"{subject.target} {subject.id}", bold=True))
    _say(f"{where} of {explanation.topic}, {since}")
    if found.is_suppressed:
        _say(
            "suppressed: consumers drop the visitor's events, also those that wait (flagpost suppress --undo)"
        )
    if found.damaged:
        _say(f"{found.damaged:,} damaged records of the ledger are left out")


def _show_story(story: Story, explanation: Explanation) -> None:
    echo("")
    when = "-" if story.occurred_at is None else moment_text(story.occurred_at)
    echo(when, Coloured(_what(story), bold=True))
    for line in _lines(legible(_about(story, explanation), MAX_TEXT_CHARACTERS), WIDTH - 2):
        echo(f"  {line}")
    for delivery in story.deliveries:
        wait = explanation.waits.get((story.partition, story.offset, delivery.kind))
        _show_delivery(story, delivery, wait)


def _show_delivery(story: Story, delivery: DeliveryStory, wait: Wait | None) -> None:
    kind = f"  {delivery.kind.value:<{KIND_COLUMNS}}"
    colour = COLOURS.get(delivery.state, WRONG)
    if delivery.settled_at is None:
        echo(kind, Coloured(delivery.state.value, colour))
    else:
        state = Coloured(delivery.state.value.ljust(STATE_COLUMNS), colour)
        echo(kind, state, moment_text(delivery.settled_at))
    told = "; ".join(text for text in (*_ended(story, delivery), *_waits(wait)) if text)
    for line in _lines(legible(told, 2 * MAX_TEXT_CHARACTERS), WIDTH - 4):
        echo(f"    {line}")


def _what(story: Story) -> str:
    """What happened, in a few words."""
    event = story.event
    if event is not None:
        return legible(_event(event), MAX_TEXT_CHARACTERS)
    entry = next((delivery.entry for delivery in story.deliveries if delivery.entry is not None), None)
    if story.record is not None or entry is None:
        return "a record that cannot be read"
    flag = None if entry.flag_key is None else f"decision {entry.flag_key} = {entry.variation_key or '-'}"
    return legible(flag or entry.event or "metadata", MAX_TEXT_CHARACTERS)


def _event(event: Event) -> str:
    if isinstance(event, DecisionEvent):
        return f"decision {event.flag_key} = {variation_as_sent(event) or '-'}"
    if isinstance(event, TrackEvent):
        who = "" if event.visitor_id is not None else ", anonymous"
        return f"track event {event.event}{who}"
    return f"metadata {', '.join(event.values)}"


def _about(story: Story, explanation: Explanation) -> str:
    """The record's place, and who published it."""
    place = f"record {story.partition}/{story.offset}"
    event_id = "" if story.event_id is None else f"event {story.event_id}"
    source = "" if story.event is None or story.event.source is None else story.event.source.service or ""
    wrong = (
        f"MISPARTITIONED: the key belongs on partition {_listed(explanation.found.homes)}"
        if story.partition not in explanation.found.homes
        else ""
    )
    gone = "" if story.record is not None else "Kafka no longer has the record"
    unreadable = "" if story.record is None else story.record.unreadable
    return "; ".join(filter(None, (place, event_id, source and f"from {source}", wrong, gone, unreadable)))


def _ended(story: Story, delivery: DeliveryStory) -> Iterator[str]:
    """Why and how it ended."""
    entry = delivery.entry
    if entry is None:
        yield _OPEN.get(delivery.state, "")
        return
    if delivery.state is not State.DELIVERED:
        of = "" if entry.duplicate_of is None else f" of {story.partition}/{entry.duplicate_of}"
        yield f"{delivery.reason}{of}: {delivery.detail}" if delivery.detail else f"{delivery.reason}{of}"
    if entry.attempts:
        yield f"{entry.attempts} attempts" if entry.attempts > 1 else "1 attempt"
    if entry.unseen:
        yield f"{entry.unseen} got no answer that was seen: Pendo may have accepted them"
    if entry.status is not None:
        yield f"last status {entry.status}"
    if delivery.sent_again:
        yield f"Pendo accepted it {delivery.sent_again} more times"
    if delivery.letter is not None:
        again = ", replayed" if delivery.letter.replayed else ""
        yield f"dead letter {delivery.letter.place}{again} (flagpost dead-letters show {delivery.letter.place})"


_OPEN = {
    State.LOST: "Kafka had deleted the record before the group read it",
    State.FORGOTTEN: "it ended before the oldest settlement left in the ledger",
    State.UNEXPLAINED: "the group committed past it, but the ledger has no settlement: see flagpost reconcile",
}


def _waits(wait: Wait | None) -> Iterator[str]:
    if wait is None:
        return
    yield wait.detail
    if wait.not_before is not None:
        yield f"not before {moment_text(wait.not_before)}"
    if wait.expires_at is not None:
        yield f"expires {moment_text(wait.expires_at)}"


def _listed(numbers: tuple[int, ...]) -> str:
    return " or ".join(map(str, numbers))


def _summary(explanation: Explanation) -> str:
    counts = Counter(delivery.state for story in explanation.stories for delivery in story.deliveries)
    told = ", ".join(f"{counts[state]:,} {state.value}" for state in State if counts[state])
    records = len(explanation.stories)
    return f"{records:,} {'record' if records == 1 else 'records'}, deliveries: {told}"


def _nothing(explanation: Explanation) -> str:
    """What to do if nothing was found."""
    if explanation.found.partitions != explanation.found.homes:
        return "Nothing found. Ids must match exactly; for an account, give --account."
    return (
        "Nothing found. Ids must match exactly; for an account, give --account. Only the id's own partition was "
        "read: with --all-partitions, records of producers with another partitioner are found as well."
    )


def _show_pendo(explanation: Explanation) -> None:
    at_pendo = explanation.at_pendo
    if at_pendo is None:
        if explanation.pendo_error:
            _say("")
            _say(f"What Pendo has is not known: {explanation.pendo_error}")
        return
    _say("")
    if not at_pendo.is_known:
        _say(f"Pendo does not know this {explanation.subject.target}; recent data may not be visible yet")
        return
    echo(Coloured("Pendo has now", bold=True))
    for field in explanation.fields:
        _show_field(field)
    others = sum(len(values) for group, values in at_pendo.metadata.items() if group != "auto")
    others -= sum(field.has_value for field in explanation.fields)
    if others > 0:
        _say(f"  {others:,} other fields that these records do not set (--json lists them)")


def _show_field(field: FieldStory) -> None:
    name = field.name if field.name == field.api_name else f"{field.name} ({field.api_name})"
    value = legible(str(field.value), MAX_VALUE_CHARACTERS) if field.has_value else "nothing"
    verdict = Coloured(field.verdict.value.replace("_", " "), VERDICT_COLOURS.get(field.verdict, WRONG))
    echo(f"  {legible(name, MAX_VALUE_CHARACTERS)} = {value}:", verdict)
    sent = ""
    if field.sent_at is not None and field.verdict is not Verdict.SAME:
        sent = (
            f"Flagpost sent {legible(str(field.sent), MAX_VALUE_CHARACTERS)} at {moment_text(field.sent_at)}"
        )
    for line in _lines(
        legible("; ".join(filter(None, (sent, field.detail))), MAX_TEXT_CHARACTERS), WIDTH - 4
    ):
        echo(f"    {line}")


def _say(text: str) -> None:
    for line in _lines(text, WIDTH) or [""]:
        echo(line)


def _lines(text: str, width: int) -> list[str]:
    return wrap(text, width, break_on_hyphens=False)
