"""The pictures of docs/: what `make pictures` takes from the demo's terminal."""

from __future__ import annotations

from documentation.demo_picture import remains

TWO_LINES_UP = "\r\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K"


def test_of_a_view_that_is_redrawn_the_last_one_is_kept() -> None:
    views = TWO_LINES_UP.join(("first\nview", "second\nview", "last\nview\n"))
    written = f"what is real\n\x1b[?25l{views}\x1b[?25h\x1b[3mtable\x1b[0m\n"
    assert remains(written) == "what is real\nlast\nview\n\x1b[3mtable\x1b[0m\n"
