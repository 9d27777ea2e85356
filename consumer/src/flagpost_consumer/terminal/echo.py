"""All output of commands goes through here, because much of it was written by others.

In: texts, JSON documents. Out: stdout or stderr, without anything that a terminal would obey: no control, escape or
bidirectional characters except those of our own colours. Tables and bars go through `rich_console`. Ruff refuses
click.echo, click.secho and rich's Console everywhere else.
"""

from __future__ import annotations

from typing import NamedTuple

import click
import orjson

from flagpost_settings.visible import visible, visible_json, visible_lines


class Coloured(NamedTuple):
    """A part of a line that is coloured on a terminal."""

    text: str
    colour: str | None = None
    bold: bool = False


def echo(*parts: str | Coloured, err: bool = False) -> None:
    """Print one line of parts with blanks between them."""
    click.echo(" ".join(map(_shown, parts)), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a text whose line breaks are ours."""
    click.echo(visible_lines(text), err=err)


def echo_json(document: object) -> None:
    """Print one JSON document on a line."""
    echo_json_text(orjson.dumps(document) + b"\n")


def echo_json_text(text: bytes) -> None:
    """Print a piece of a JSON document, in UTF-8 whatever the encoding of stdout."""
    click.echo(visible_json(text).encode(), nl=False)


def _shown(part: str | Coloured) -> str:
    if isinstance(part, str):
        return visible(part)
    return click.style(visible(part.text), fg=part.colour, bold=part.bold or None)
