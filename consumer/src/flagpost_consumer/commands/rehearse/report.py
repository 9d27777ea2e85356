"""Shows a rehearsal: one JSON document, or a table and sentences for people.

In: what was found. Out: text. docs/rehearse.md describes the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from flagpost_consumer.commands.rehearse.differences import Change, Differences, Example, LeftOut, Row
from flagpost_consumer.commands.rehearse.reading import Rehearsal
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.planning.legible import MAX_NAME_CHARACTERS, legible
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.times import moment_text

PLAIN_WIDTH = 200
"""The width of a table without a terminal."""
NOT_PLANNED = "not planned"

_WHY = {
    LeftOut.PENDING: "have not ended yet",
    LeftOut.UNEXPLAINED: "are unexplained (see flagpost reconcile)",
    LeftOut.LOST: "could not be read by the group",
    LeftOut.NOT_COVERED: "depend on others that are not among the records read",
    LeftOut.UNCLEAR: "depend on which metadata request was in flight when they came, which is not in the ledger",
}


def as_json(found: Rehearsal) -> dict[str, Any]:
    """The document."""
    differences = found.differences
    return {
        "window": {"since": found.since_ms, "until": found.until_ms, "cut_offsets": found.cut_offsets},
        "compared": differences.compared,
        "same": differences.same,
        "different": differences.different,
        "differences": [_row_json(change, row) for change, row in _sorted(differences)],
        "left_out": {why.value: differences.left_out[why] for why in LeftOut},
        "warnings": list(warnings(found)),
    }


def _row_json(change: Change, row: Row) -> dict[str, Any]:
    return {
        "kind": change.kind.value,
        "ledger": _ending_json(change.ledger),
        "rehearsed": _ending_json(change.rehearsed),
        "count": row.count,
        "examples": [asdict(example) for example in row.examples],
    }


def _ending_json(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else {"outcome": reason.outcome.value, "reason": reason.value}


_FORGOTTEN: Final = frozenset(
    Change(kind, ledger, Reason.UNCHANGED)
    for kind in (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA)
    for ledger in (Reason.OK, Reason.SUPERSEDED)
)
"""Differences that the ledger cannot tell from those of a hand-over."""


def _sorted(differences: Differences) -> list[tuple[Change, Row]]:
    """The most frequent first."""
    return sorted(
        differences.rows.items(), key=lambda each: (-each[1].count, [str(part) for part in each[0]])
    )


def warnings(found: Rehearsal) -> Iterator[str]:
    """What limits the result."""
    if found.cut_offsets:
        yield (
            f"The ledger no longer covers {found.cut_offsets:,} offsets of the window, so they are left out. "
            "Keep the ledger longer than the events (flagpost check)."
        )
    if found.damaged:
        yield (
            f"{found.damaged:,} records of the ledger cannot be read; the deliveries in them count as pending or "
            "unexplained."
        )
    forgotten = sum(row.count for change, row in found.differences.rows.items() if change in _FORGOTTEN)
    if forgotten:
        yield (
            f"{forgotten:,} of the differences may come from hand-overs: a consumer that loses a partition and gets "
            "it back forgets which metadata values it had sent, so values that are now "
            f"{_named(Reason.UNCHANGED)} were sent once more, or replaced before that."
        )


def show(found: Rehearsal, console: Terminal) -> None:
    """Print the result for people; its last sentence is the summary."""
    differences = found.differences
    since = "the beginning" if found.since_ms is None else moment_text(found.since_ms)
    _say(console, f"From {since} to {moment_text(found.until_ms)}")
    if differences.rows:
        console.print(_table(differences))
    for why, count in differences.left_out.items():
        _say(console, f"Left out: {count:,} deliveries {_WHY[why]}.")
    for warning in warnings(found):
        _say(console, warning, "yellow")
    _say(console, summary(differences), "bold red" if differences.different else "green")


def summary(differences: Differences) -> str:
    """The result, in one sentence."""
    if not differences.different:
        return f"No difference: {differences.compared:,} deliveries would end as in the ledger."
    return f"{differences.different:,} of {differences.compared:,} deliveries would end differently."


def _table(differences: Differences) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("kind", "in the ledger", "rehearsed"):
        table.add_column(title, overflow="fold")
    table.add_column("deliveries", justify="right", no_wrap=True)
    table.add_column("example (partition/offset, event id)", overflow="fold")
    for change, row in _sorted(differences):
        table.add_row(
            change.kind.value,
            _named(change.ledger),
            _named(change.rehearsed),
            f"{row.count:,}",
            Text(_place(row.examples[0])),  # an event id may look like markup
        )
    return table


def _named(reason: Reason | None) -> str:
    return NOT_PLANNED if reason is None else f"{reason.outcome.value}/{reason.value}"


def _place(example: Example) -> str:
    event_id = "" if example.event_id is None else f", {legible(example.event_id, MAX_NAME_CHARACTERS)}"
    return f"{example.partition}/{example.offset}{event_id}"


def _say(console: Terminal, text: str, style: str = "") -> None:
    """A line; without a terminal it is not broken."""
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)
