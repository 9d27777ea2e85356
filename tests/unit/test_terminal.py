"""Nothing that commands and logs print controls a terminal, whoever wrote the text."""

from __future__ import annotations

import io
import logging

import click
import orjson
import pytest
import structlog
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from flagpost_consumer.commands.cli import LazyGroup, flagpost
from flagpost_consumer.terminal.echo import Coloured, echo, echo_json, echo_lines
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_settings.log_section import LogFormat, LogSettings
from flagpost_settings.logs import configure_logging
from flagpost_settings.visible import visible, visible_json, visible_lines

HOSTILE = "\x1b[2J\x1b]0;title\x07v\nw\x9b31m\x7f\u202eevil\u2066\u200f\u2028x"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def is_harmless(printed: str) -> bool:
    return all(line.isprintable() for line in printed.split("\n"))


@given(ANY_TEXT)
def test_visible_text_is_printable_and_otherwise_unchanged(text: str) -> None:
    assert visible(text).isprintable()
    assert is_harmless(visible_lines(text))
    assert visible_lines(text).count("\n") == text.count("\n")
    if text.isprintable():
        assert visible(text) == text


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=5))
def test_a_json_document_stays_the_same_document(document: object) -> None:
    for option in (None, orjson.OPT_INDENT_2):
        shown = visible_json(orjson.dumps(document, option=option))
        assert is_harmless(shown)
        assert orjson.loads(shown) == document


def test_the_output_of_commands_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE, Coloured(HOSTILE, "red"))
    echo(HOSTILE, err=True)
    echo_json({"id": HOSTILE})
    out, err = capsys.readouterr()
    assert is_harmless(out)
    assert is_harmless(err)
    line, document, end = out.split("\n")
    assert line.count("evil") == 2
    assert orjson.loads(document) == {"id": HOSTILE}
    assert (end, err.count("\n")) == ("", 1)
    echo_lines(f"ours\n{HOSTILE}")
    assert is_harmless(capsys.readouterr().out)


def test_only_our_own_colours_are_printed() -> None:
    @click.command()
    def show() -> None:
        echo(Coloured(HOSTILE, "red"))

    shown = CliRunner().invoke(show, color=True).output
    assert shown.startswith("\x1b[31m")
    assert is_harmless(shown.removeprefix("\x1b[31m").replace("\x1b[0m", ""))


def test_tables_are_harmless() -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE))
    table.add_row(HOSTILE)
    file = io.StringIO()
    terminal = Terminal(file=file, width=200)
    terminal.print(table)
    terminal.print(HOSTILE, Text(HOSTILE))
    assert is_harmless(file.getvalue())
    assert "evil" in file.getvalue()


def test_a_progress_bar_still_moves_the_cursor_itself() -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, width=80, legacy_windows=False)
    with Progress(console=terminal, transient=True) as bar:
        bar.add_task("reading", total=2)
    assert "\x1b[2K" in file.getvalue()
    assert "\\x1b" not in file.getvalue()


@pytest.mark.parametrize(
    "error",
    [click.ClickException(HOSTILE), click.UsageError(HOSTILE), click.BadParameter(HOSTILE)],
    ids=["error", "usage", "parameter"],
)
def test_errors_of_commands_are_harmless(error: click.ClickException) -> None:
    @click.command()
    def failing() -> None:
        raise error

    group = LazyGroup("flagpost", commands_at={})
    group.get_command = lambda *_: failing  # type: ignore[method-assign]
    result = CliRunner().invoke(group, ["failing"])
    assert is_harmless(result.output)
    assert "evil" in result.output
    assert result.exit_code == error.exit_code


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_logs_are_harmless(log_format: LogFormat) -> None:
    file = io.StringIO()
    configure_logging(LogSettings(format=log_format), file)
    log = structlog.get_logger("flagpost_consumer.tests")
    try:
        int(HOSTILE)
    except ValueError:
        log.exception(HOSTILE, reason=HOSTILE, several=[HOSTILE])
    logging.getLogger("flagpost_consumer.tests").warning("%s", HOSTILE)
    ours = ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[{number}m" for number in range(30, 48)))
    written = file.getvalue()
    for each in ours:
        written = written.replace(each, "")
    assert is_harmless(written)
    assert written.count("evil") >= 4


def test_preview_prints_a_hostile_event_harmlessly() -> None:
    event = {"type": "track", "visitor_id": HOSTILE, "event": HOSTILE, "properties": {HOSTILE: HOSTILE}}
    for arguments in (["preview"], ["preview", "--json"]):
        result = CliRunner().invoke(flagpost, arguments, input=orjson.dumps(event))
        assert "evil" in result.output
        assert is_harmless(result.output)
    broken = CliRunner().invoke(flagpost, ["preview"], input=orjson.dumps({"type": HOSTILE, HOSTILE: 1}))
    assert broken.exit_code == 1, broken.output
    assert is_harmless(broken.output)
