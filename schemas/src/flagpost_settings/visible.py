"""Other people's texts where people read them: terminals and logs obey control characters.

In: any text, or a JSON document. Out: the same without what a terminal would obey, or what would show another order
or other letters than there are: control characters (C0, C1), escape sequences, bidirectional and other invisible
characters are escaped as Python writes them, in JSON as JSON does.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """The text on one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def visible_lines(text: str) -> str:
    """The text, whose lines stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(document: bytes) -> str:
    """A JSON document that says the same: what is escaped can stand in its strings only."""
    return "\n".join(map(_visible_in_json, document.decode().split("\n")))


def _visible_in_json(line: str) -> str:
    return (
        line if line.isprintable() else "".join(c if c.isprintable() else _escaped_in_json(c) for c in line)
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _escaped_in_json(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
