"""A reconciliation for people: the window, the rows, warnings, and the result in one sentence.

In: the report, a console. Out: text.
"""

from __future__ import annotations

from rich.padding import Padding
from rich.text import Text

from flagpost_consumer.commands.reconcile import three_way_report
from flagpost_consumer.commands.reconcile.impressions_report import impression_sentences
from flagpost_consumer.commands.reconcile.ratio_words import ratio_remark
from flagpost_consumer.commands.reconcile.report import WHAT_TO_DO, Report, summary
from flagpost_consumer.commands.reconcile.rows_text import show_rows
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.times import moment_text

PLAIN_WIDTH = 80
"""The width of the text without a terminal."""


def show(report: Report, console: Terminal) -> None:
    """Print the report; its last sentence is the result."""
    found = report.found
    since = "the beginning" if found.since_ms is None else moment_text(found.since_ms)
    _say(console, f"From {since} to {moment_text(found.until_ms)}")
    show_rows(report, console)
    if found.impressions is not None:
        for line in impression_sentences(found.impressions):
            _say(console, line)
    if report.compared is not None:
        for line in three_way_report.sentences(report.compared):
            _say(console, line)
    for ratio in report.ratios:
        if not ratio.skewed:
            _say(console, ratio_remark(ratio))
    for warning in report.warnings():
        _say(console, warning, "yellow")
    if found.books.examples:
        places = ", ".join(str(example) for example in found.books.examples)
        more = "" if len(found.books.examples) == found.books.unexplained else ", …"
        _say(console, f"Unexplained (partition/offset/kind): {places}{more}. {WHAT_TO_DO}", "red")
    _say(console, summary(found), "green" if found.adds_up else "bold red")


def _say(console: Terminal, text: str, style: str = "") -> None:
    """Print a sentence with the indentation of its own leading spaces, also in the lines after the first."""
    indent = len(text) - len(text.lstrip(" "))
    shown = Text(legible(text, len(text)), style=style)
    console.print(Padding(shown, (0, 0, 0, indent), expand=False))
