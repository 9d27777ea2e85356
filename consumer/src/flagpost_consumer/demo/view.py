"""What the demo shows while it runs, and its table at the end.

In: numbers. Out: a live picture of the path on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.align import Align
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flagpost_consumer.demo.journey import Journey
from flagpost_consumer.demo.reconciliation import Counts, Reconciliation
from flagpost_consumer.terminal.rich_console import Terminal

PLAIN_LINE_SECONDS = 2.0

COLUMNS = {
    "published": "published",
    "delivered": "delivered",
    "duplicate": "duplicates",
    "dropped": "dropped",
    "dead_lettered": "dead\nletters",
    "pending": "pending",
    "unexplained": "unex-\nplained",
}
_INJECTED = "  (503: 2 %, on purpose)"
RARE = ("dropped", "dead_lettered", "pending")
"""Shown only if there are any."""
OTHER = "other"
"""The column for these if there are several kinds; the sum below the table says which."""


@dataclass(slots=True)
class Numbers:
    """Everything that the picture shows."""

    phase: str = "starting"
    seconds: float = 0.0
    decisions: int = 0
    removed_by_publisher: int = 0
    published: int = 0
    consumed: int = 0
    duplicates: int = 0
    paced: int = 0
    ready: int = 0
    in_flight: int = 0
    delivered: int = 0
    metadata_values: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """Pendo's answers to track and metadata requests, by status."""
    metadata_requests: int = 0
    journey: Journey | None = None
    """The first decision that was delivered."""


def picture(numbers: Numbers) -> RenderableType:
    """The path from decide() to Pendo, with the present numbers."""
    path = Table.grid(expand=True, padding=(0, 1))
    for _ in range(4):
        path.add_column(justify="center", ratio=1)
    path.add_row(
        *(Text(title, style="bold") for title in ("Your service", "─▶ Kafka", "─▶ Flagpost", "─▶ Pendo"))
    )
    path.add_row(
        _stage(numbers.decisions, "decisions of the\nOptimizely SDK"),
        _stage(numbers.published, "events\npublished"),
        _stage(numbers.duplicates, "more duplicates\nremoved"),
        _stage(numbers.delivered, "track events\nreceived"),
    )
    path.add_row()
    path.add_row(
        _detail(f"{numbers.removed_by_publisher:,} duplicates\nremoved at once"),
        _detail(f"{numbers.consumed:,} read by\nthe consumer"),
        _detail(f"{numbers.paced:,} waiting for\ntheir turn,\n{numbers.in_flight:,} in flight"),
        _detail(f"{numbers.metadata_values:,} visitors\nupdated in\n{numbers.metadata_requests:,} requests"),
    )
    answers = "  ".join(f"{count:,} of {status}" for status, count in sorted(numbers.answers.items()))
    footer = Text(f"Pendo's answers: {answers or 'none yet'}{_INJECTED}", style="dim", justify="center")
    title = f"Flagpost · {numbers.seconds:.0f} s · {numbers.phase}"
    return Panel(
        Group(path, Text(), footer, Text(), _travelling(numbers.journey)), title=title, padding=(0, 2)
    )


def _travelling(journey: Journey | None) -> RenderableType:
    """One event on its way; it always has the same height, so that the picture does not jump."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True, min_width=len("decision"))
    lines.add_column(no_wrap=True, overflow="ellipsis")
    for name in Journey._fields:
        lines.add_row(name, Text("" if journey is None else getattr(journey, name)))
    return lines


def print_journey(console: Terminal, journey: Journey | None) -> None:
    """The four stages in full lines, for output that is not a terminal."""
    if journey is not None:
        console.print("One event on its way:", highlight=False)
        for name in Journey._fields:
            console.print(f"  {name:<8}  ", Text(getattr(journey, name)), highlight=False, soft_wrap=True)


def print_next_steps(console: Terminal) -> None:
    """Where to go from here."""
    console.print(
        "\nNext: attach it to your service, in one line   publisher/README.md\n"
        "      see what an event of yours would become  flagpost preview\n"
        "      run it in production                     flagpost check, flagpost consume",
        highlight=False,
    )


def plain_line(numbers: Numbers) -> str:
    """The present numbers in one line."""
    return (
        f"{numbers.seconds:3.0f} s  {numbers.phase}: {numbers.decisions} decisions, {numbers.published} published, "
        f"{numbers.duplicates} duplicates removed, {numbers.paced} waiting for their visitor's turn, "
        f"{numbers.delivered} delivered; Pendo's answers {numbers.answers}"
    )


def print_table(console: Terminal, table: Reconciliation) -> None:
    """The reconciliation by flag and variation, and the verdict."""
    columns = _columns(table.totals)
    shown = Table(title="Every decision, accounted for", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("", no_wrap=True, min_width=len("checkout_redesign"))
    for title in ("decided", *(COLUMNS.get(column, column) for column in columns), "Pendo"):
        shown.add_column(title, justify="right", no_wrap=True)
    flag_above = None
    for flag, variation in table.ordered_rows():
        if flag != flag_above:
            shown.add_row(Text(flag, style="bold"))
            flag_above = flag
        row = flag, variation
        cells = _cells(table.rows[row], columns)
        shown.add_row(
            f"  {variation or '(no variation)'}", str(table.decided[row]), *cells, str(table.at_pendo[row])
        )
    shown.add_row()
    shown.add_row("other events", "", *_cells(table.other, columns), "")
    totals = _cells(table.totals, columns)
    shown.add_row("all track events", str(table.decided.total()), *totals, "", style="bold")
    shown.add_row("visitor metadata", "", *_cells(table.metadata, columns), "", style="dim")
    console.print(shown)
    _print_verdict(console, table)


def _print_verdict(console: Terminal, table: Reconciliation) -> None:
    decisions = list(table.rows.values())
    published = sum(counts.published for counts in decisions)
    delivered = sum(counts.delivered for counts in decisions)
    duplicates = sum(counts.duplicate for counts in decisions)
    parts = [
        f"{table.removed_at_source} duplicates removed by the publisher",
        f"{duplicates} duplicates removed by the consumer",
        f"{delivered} delivered",
        f"{published - duplicates - delivered} dropped, dead-lettered or pending",
    ]
    console.print(f"{table.decided.total()} decisions = " + "\n  + ".join(parts), highlight=False)
    disagreements = table.disagreements()
    for text in disagreements:
        console.print(f"[red]Does not add up:[/red] {text}")
    if not disagreements:
        console.print("[green]Everything adds up; nothing is unexplained.[/green]")


def _columns(totals: Counts) -> list[str]:
    """The columns that fit in 80 characters; rare outcomes have one only if there are any."""
    rare = [column for column in RARE if getattr(totals, column)]
    shown = rare if len(rare) < 2 else [OTHER]
    common = [column for column in COLUMNS if column not in RARE]
    return [*common[:-1], *shown, common[-1]]


def _cells(counts: Counts, columns: list[str]) -> list[str]:
    other = sum(getattr(counts, column) for column in RARE)
    return [str(other if column == OTHER else getattr(counts, column)) for column in columns]


def _stage(number: int, caption: str) -> RenderableType:
    return Align.center(
        Group(Text(f"{number:,}", style="bold cyan", justify="center"), Text(caption, justify="center"))
    )


def _detail(text: str) -> Text:
    return Text(text, style="dim", justify="center")
