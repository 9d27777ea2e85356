"""Writes docs/decisions/README.md: the list of the decisions, each with its title and its status.

In: the records of docs/decisions. Out: the page; `make decisions` writes it, a test holds that it is up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER = Path(__file__).parents[1] / "docs" / "decisions"
PAGE = FOLDER / "README.md"

_HEAD: Final = """# Decisions

Why it is built so: one record for each decision that a reader could doubt. Made by `make decisions`.

| | decision | status |
|---|---|---|
"""


def records() -> list[Path]:
    """The records, in their order."""
    return sorted(FOLDER.glob("[0-9]*.md"))


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(map(_row, records()))


def _row(record: Path) -> str:
    title, _, status, *_ = record.read_text().splitlines()
    name, state = title.partition(". ")[2], status.removeprefix("Status: ")
    return f"| [{record.name[:4]}]({record.name}) | {name} | {state} |\n"


def write() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    write()
