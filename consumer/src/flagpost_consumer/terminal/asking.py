"""Questions to a person at a terminal; a script is asked nothing.

In: a question. Out: whether to go on.
"""

from __future__ import annotations

import sys

import click


def at_a_terminal() -> bool:
    """Whether a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str) -> bool:
    """Ask the question if a person is there to answer; else return True."""
    return not at_a_terminal() or click.confirm(question, err=True)
