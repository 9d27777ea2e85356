"""docs/pictures/demo.svg: what `flagpost demo` leaves on a terminal (`make pictures`).

In: the demo itself, run in a pseudo-terminal. Out: its last screen as a drawing. Its times differ each time, so no
test keeps the picture in step.
"""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

from rich.text import Text

from documentation.pseudo_terminal import written_to_terminal
from flagpost_consumer.terminal.rich_console import Terminal

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "demo.svg"
COMMAND = (Path(sys.executable).parent / "flagpost", "demo", "--seconds", "10")
COLUMNS, LINES = 92, 50
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
"""What the live view begins and ends with."""
ERASE_LINE = "\x1b[2K"
"""Before each redrawing the view erases its lines, from the last one up."""
FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""From a server of others, which a page of ours does not ask."""


def shown() -> str:
    """Everything that the demo writes to a terminal."""
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    code, written = written_to_terminal(COMMAND, environ)
    if code != 0:
        sys.exit(f"the demo ended with exit code {code}:\n{written}")
    return written.replace("\r\n", "\n")


def remains(text: str) -> str:
    """What is still on the screen at the end: the first lines, the last view, and what follows it."""
    before, _, live = text.partition(HIDE_CURSOR)
    return before + live.rpartition(ERASE_LINE)[2].replace(SHOW_CURSOR, "")


def main() -> None:
    """Take the picture."""
    screen = Terminal(record=True, width=COLUMNS, file=io.StringIO())
    screen.print(Text.from_ansi(remains(shown())))
    PICTURE.write_text(FONTS.sub("", screen.export_svg(title="flagpost demo", unique_id="demo")))


if __name__ == "__main__":
    main()
