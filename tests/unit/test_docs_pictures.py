"""The pictures of docs/: the part of the demo's terminal output that `make pictures` keeps."""

from __future__ import annotations

from documentation.demo_picture import remains

TWO_LINES_UP = "\r\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K"


def test_only_the_last_state_of_a_redrawn_view_is_kept() -> None:
    views = TWO_LINES_UP.join(("first\nview", "second\nview", "last\nview\n"))
    written = f"what is real\n\x1b[?25l{views}\x1b[?25h\x1b[3mtable\x1b[0m\n"
    assert remains(written) == "what is real\nlast\nview\n\x1b[3mtable\x1b[0m\n"
