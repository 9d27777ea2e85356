"""The demo as a user sees it: piped, in terminals of several kinds, and with Ctrl-C at any moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from deadlines import stretched
from documentation.pseudo_terminal import written_to_terminal
from running import FLAGPOST

SHORT = [str(FLAGPOST), "demo", "--seconds", "1", "--rate", "40", "--visitors", "20"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*([A-Za-z])")
STATIONS = ("decision", "record", "request", "answer")
GIVE_UP_SECONDS = 120
INTERRUPTED = (130, -signal.SIGINT)
"""The exit codes after Ctrl-C: the command's own, or the signal's if Python was still importing."""


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "TERM"}
    }
    return {**kept, "COLUMNS": "80", "LINES": "24", **more}


def on_a_terminal(**more: str) -> str:
    """Run the demo in a pseudo-terminal; returns what it printed there."""
    code, written = written_to_terminal(SHORT, environment(**more))
    assert code == 0, written
    return written


@pytest.mark.thorough
def test_piped_it_prints_everything_in_lines() -> None:
    done = subprocess.run(
        SHORT,
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(GIVE_UP_SECONDS),
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    out = done.stdout
    assert "\x1b" not in out
    assert out.startswith("Real here: ")
    told = [
        "503, on purpose",
        "One event on its way:",
        "Everything adds up; nothing is unexplained.",
        "Next: ",
    ]
    places = [out.index(text) for text in told]
    assert places == sorted(places)
    for station in STATIONS:
        assert re.search(rf"^  {station} +\S", out, re.MULTILINE), station
    assert re.search(r"^  request +POST /data/track \{.*\}$", out, re.MULTILINE)


@pytest.mark.thorough
def test_a_dumb_terminal_gets_lines_without_control_sequences() -> None:
    shown = on_a_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert "One event on its way:" in shown


def test_no_color_turns_colours_off() -> None:
    shown = on_a_terminal(TERM="xterm-256color", NO_COLOR="1")
    styles = re.findall(r"\x1b\[([0-9;]*)m", shown)
    colours = [code for style in styles for code in style.split(";") if re.fullmatch(r"3\d|4\d|9\d", code)]
    assert colours == []
    assert all(station in shown for station in STATIONS)


@pytest.mark.parametrize("said", ["Real here: ", "Ctrl-C ends the traffic", " s  the application decides"])
def test_ctrl_c_early_is_clean(said: str) -> None:
    """Ctrl-C before the first decision, and soon after it."""
    with subprocess.Popen(
        [str(FLAGPOST), "demo", "--seconds", "600"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while said not in (line := process.stdout.readline()):
            assert line
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # like a terminal: to the whole foreground process group
        out, errors = process.communicate(timeout=stretched(GIVE_UP_SECONDS))
    if process.returncode == 0:
        assert "Everything adds up" in out
        assert errors == ""
    else:
        assert process.returncode in INTERRUPTED, errors
        assert errors in ("", "stopped before the first decision\n")
    _, left = psutil.wait_procs(children, timeout=stretched(GIVE_UP_SECONDS))
    assert left == []


def test_nothing_heavy_is_imported_before_ctrl_c_is_handled() -> None:
    entry = Path(__file__).parents[2] / "consumer" / "src" / "flagpost_consumer" / "entry.py"
    program = (
        f"import sys; import flagpost_consumer.entry; sys.stdout.write(' '.join(sys.modules)); {entry.name!r}"
    )
    done = subprocess.run(
        [FLAGPOST.parent / "python", "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"click", "pydantic", "importlib.metadata", "asyncio"} & set(done.stdout.split())
