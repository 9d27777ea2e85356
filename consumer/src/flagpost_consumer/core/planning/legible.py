"""Makes other people's texts fit for ours: Pendo's words and the names of properties, as dead letters show them.

In: any text. Out: one short line that a terminal can show.
"""

from __future__ import annotations

MAX_NAME_CHARACTERS = 60


def legible(text: str, most_characters: int) -> str:
    """The beginning of a text, on one line, without control characters."""
    # Characters that cannot be shown take room, too. Four times the room is plenty; the rest of a megabyte is not
    # read.
    beginning = text[: 4 * most_characters]
    shown = " ".join("".join(c if c.isprintable() else " " for c in beginning).split())
    if len(shown) <= most_characters and len(beginning) == len(text):
        return shown
    return f"{shown[: most_characters - 1]}…"


def quoted(name: str) -> str:
    """A name in quotes, because it may be empty or end in a space."""
    return f'"{legible(name, MAX_NAME_CHARACTERS)}"'
