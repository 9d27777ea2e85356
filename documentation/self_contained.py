"""Whether a page of the site loads something from elsewhere: a script, a style, a font, a picture.

In: HTML or CSS. Out: the addresses that a browser would ask of somebody else without anybody's click.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_LOADING = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href",
}  # fmt: skip
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}
_ELSEWHERE = re.compile(r"^(https?:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


def loaded_by_page(html: str) -> list[str]:
    """The addresses elsewhere that a page loads, in their order."""
    reader = _Reader()
    reader.feed(html)
    return reader.found


def loaded_by_style(css: str) -> list[str]:
    """The addresses elsewhere that a style sheet loads, in their order."""
    return _IN_STYLES.findall(css)


class _Reader(HTMLParser):
    """Collects what a page's elements load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See one element."""
        values = {name: value or "" for name, value in attrs}
        address = values.get(_LOADING.get(tag, ""), "")
        if _ELSEWHERE.match(address) and values.get("rel") not in _NOT_LOADED:
            self.found.append(address)
        self.found += loaded_by_style(values.get("style", ""))
