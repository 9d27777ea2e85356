"""Pages of the site for what docs/ links to outside itself: READMEs as they are, other files and folders shown.

In: the repository's files. Out: where each has its page in the site, the page's text, and links that lead there. So
the site needs no address of the repository. No I/O but reading files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(\))")
"""A Markdown link or picture that leads to a file: its target and its anchor."""

PREFIX = "repository/"
"""Where the site has the pages of what is outside docs/."""

_HIDDEN = re.compile(r"^\.|^__pycache__$|^node_modules$")
_NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def page_of(path: str) -> str:
    """The page of the site that shows `path`, a path in the repository."""
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PREFIX + (path if path.endswith(".md") else f"{path}.md")


def path_of(page: str) -> str:
    """The path in the repository of the text that a page shows."""
    return page.removeprefix(PREFIX) if page.startswith(PREFIX) else f"docs/{page}"


def linked_paths(page: str, text: str) -> Iterator[str]:
    """The paths in the repository that a page's links lead to. Raises ValueError for one that is not there."""
    for match in LINK.finditer(text):
        yield _target(page, match[2])


def with_links_of_the_site(page: str, text: str) -> str:
    """The page's text, each link leading to the page that the site has for its target."""

    def rewritten(match: re.Match[str]) -> str:
        target = posixpath.relpath(page_of(_target(page, match[2])), posixpath.dirname(page) or ".")
        return f"{match[1]}{target}{match[3] or ''}{match[4]}"

    return LINK.sub(rewritten, text)


def is_written_here(page: str) -> bool:
    """Whether a page outside docs/ is a Markdown file of the repository, and not one that `shown` makes."""
    return page.endswith(".md") and (ROOT / path_of(page)).is_file()


def text_of(page: str) -> str:
    """The text of the Markdown file that a page is."""
    return (ROOT / path_of(page)).read_text()


def shown(path: str) -> str:
    """A page that shows a file's text, or what a folder holds."""
    title = f"{_NOT_SEARCHED}# `{path}`\n\n"
    if (ROOT / path).is_dir():
        names = sorted(each.name for each in (ROOT / path).iterdir() if not _HIDDEN.match(each.name))
        return title + "".join(f"- `{name}`\n" for name in names)
    text = (ROOT / path).read_text()
    language = Path(path).suffix.removeprefix(".").replace("avsc", "json") or "text"
    fence = "`" * (1 + max(len(run) for run in ["``", *re.findall("`+", text)]))
    return f"{title}{fence}{language}\n{text}\n{fence}\n"


def _target(page: str, link: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(path_of(page)), link))
    if path.startswith("..") or not (ROOT / path).exists():
        raise ValueError(f"{path_of(page)} links to {link}, which is not there")
    return path
