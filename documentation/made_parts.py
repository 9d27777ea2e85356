"""Parts of a page that are made: what stands between a mark `made by make TARGET: NAME` and its end.

In: a page's text. Out: the names of its made parts, or the text with one of them made anew.
"""

from __future__ import annotations

import re


def names(text: str, target: str) -> list[str]:
    """The made parts of a page that `make TARGET` writes, in their order."""
    return re.findall(f"<!-- made by make {target}: (.+) -->", text)


def with_part(text: str, target: str, name: str, made: str) -> str:
    """The page's text with one part made anew."""
    pattern = f"(<!-- made by make {target}: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{made}\n\n{found[2]}", text, flags=re.DOTALL)
