"""Writes HTML so that no text from others can become markup.

In: texts, numbers, and pieces of HTML made here. Out: `Html`. Everything that is not `Html` is escaped, and
characters that change the display or are invisible (bidirectional, control) are shown escaped, as in the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from flagpost_settings.visible import visible

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
"""Elements without an end tag."""


class Html(str):
    """A text that is already markup."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"
"""What an element may contain; None is nothing."""


def element(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """One element. In attribute names `_` stands for `-`, and one at the end is left out (`class_`, `for_`).

    An attribute that is True has no value; one that is False or None is left out.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Pieces one after the other."""
    return Html("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int):
        return escape(visible(str(child)))
    return joined(*child)


def _attribute(key: str, value: str | int | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(visible(str(value)))}"'
