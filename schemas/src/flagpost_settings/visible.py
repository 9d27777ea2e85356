"""Makes other people's texts safe to show: terminals and logs obey control characters.

In: any text, or a JSON document. Out: the same without anything that a terminal would obey, or that would show a
false order or false letters: control characters (C0, C1), escape sequences, bidirectional and other invisible
characters are escaped like in Python, in JSON like in JSON.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """The text on one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def visible_lines(text: str) -> str:
    """The text with its line breaks kept."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(document: bytes) -> str:
    """An equivalent JSON document: what is escaped can only be in its strings."""
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
