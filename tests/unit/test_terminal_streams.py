"""What commands print reaches stdout in any encoding, and a stdout that cannot be written is one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from deadlines import stretched
from flagpost_consumer.commands.cli import COMMANDS
from running import FLAGPOST, environment

SECONDS = 60.0
TEXT = "Ærø → 😀"
TRACK = orjson.dumps({"type": "track", "visitor_id": TEXT, "event": TEXT, "properties": {}})
DRAWN = """
import sys
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_consumer.terminal.streams import make_streams_usable

make_streams_usable()
from rich.table import Table

table = Table("name")
table.add_row(sys.argv[1])
Terminal().print(table)
Terminal(stderr=True).print(sys.argv[1])
"""
MUCH = """
from flagpost_consumer.commands.cli import COMMANDS, CommandAt, main
from flagpost_consumer.commands import cli
import sys, types, click

@click.command()
def much() -> None:
    from flagpost_consumer.terminal.echo import echo
    from flagpost_consumer.terminal.rich_console import Terminal
    for number in range(100_000):
        echo("line") if number % 2 else Terminal().print("line")

at = sys.modules["much"] = types.ModuleType("much")
at.much = much
COMMANDS[sys.argv[1]] = CommandAt("much", "much", "", only_done=COMMANDS[sys.argv[1]].only_done)
main()
"""


def ran(*arguments: str | Path, redirected: str = "", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with redirections, and an event on stdin."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", *arguments],
        env=environment({}) | environ,
        input=TRACK,
        capture_output=True,
        timeout=stretched(SECONDS),
        check=False,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_every_text_is_printed_whatever_the_encoding(encoding: str) -> None:
    """Before the fix, a character that the encoding lacks ended the command with UnicodeEncodeError."""
    shown = ran(FLAGPOST, "preview", PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, b""), shown
    document = ran(FLAGPOST, "preview", "--json", PYTHONIOENCODING=encoding)
    assert TEXT in orjson.loads(document.stdout)["requests"][0]["body"]
    drawn = ran(sys.executable, "-c", DRAWN, TEXT, PYTHONIOENCODING=encoding)
    assert (drawn.returncode, b"Traceback" in drawn.stderr) == (0, False), drawn
    expected = TEXT.encode(encoding, "backslashreplace")
    assert expected in drawn.stdout
    assert expected in drawn.stderr


@pytest.mark.parametrize(
    ("redirected", "why"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
@pytest.mark.parametrize("arguments", [("preview",), ("preview", "--json"), ("--help",), ("check", "--help")])
def test_a_stdout_that_cannot_be_written_is_one_line(
    arguments: Sequence[str], redirected: str, why: str
) -> None:
    """Before the fix, a full disk was a traceback, and a closed stdout was one or exit code 0."""
    if "full" in redirected and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = ran(FLAGPOST, *arguments, redirected=redirected)
    assert (done.returncode, done.stderr.decode()) == (1, f"Error: stdout cannot be written: {why}\n")


def test_closed_streams_stop_no_command_that_prints_nothing() -> None:
    done = ran(FLAGPOST, "preview", "--nonsense", redirected="<&- >&- 2>&-")
    assert done.returncode == 2
    assert ran(FLAGPOST, "topics", "create", redirected=">&-").returncode == 2


@pytest.mark.parametrize(("command", "code"), [("tail", 0), ("sql", 0), ("reconcile", 141), ("check", 141)])
def test_a_reader_that_has_gone_ends_every_command_silently(command: str, code: int) -> None:
    """Before the fix, some commands ended with 1, which says for `reconcile` that something was lost. An exit code of
    0 would say that nothing was.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", MUCH, command],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(stretched(SECONDS)), said) == (code, b"")


def test_the_contract_says_which_exit_codes_are_verdicts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text().partition("## Exit codes")[2]
    row = next(line for line in page.splitlines() if "could not be done" in line)
    assert {name for name, at in COMMANDS.items() if at.only_done} - {"consume", "web"} == {
        name for name in COMMANDS if f"`{name}`" in row
    }
