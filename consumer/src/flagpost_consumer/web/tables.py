"""Tables, from which the page and the CSV files are made: each number is written once, and is the same in both.

In: columns and rows. Out: HTML, CSV. A cell that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flagpost_consumer.terminal.csv_cells import safe_cell
from flagpost_consumer.web.html import Html, element


@dataclass(frozen=True, slots=True)
class Link:
    """A cell that links to something."""

    text: str
    href: str


Cell: TypeAlias = str | int | Link | None


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    name: str
    """The name of its CSV file."""
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """The first cell of each row says what the row is about."""
    query: str = ""
    """The query of the CSV's address."""

    def as_html(self, *, empty: str = "There is nothing yet.") -> Html:
        """The table with a link to its CSV; on a narrow screen it is scrolled by itself."""
        if not self.rows:
            return element("p", element("strong", self.caption), ": ", empty, class_="empty")
        head = element("tr", [self._title(place) for place in range(len(self.columns))])
        body = [_row(row) for row in self.rows]
        table = element(
            "table", element("caption", self.caption), element("thead", head), element("tbody", body)
        )
        scrolled = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=self.caption)
        href = f"/csv/{self.name}{self.query and '?' + self.query}"
        link = element("a", "CSV", element("span", f" of: {self.caption}", class_="unseen"), href=href)
        return element("div", scrolled, element("p", link, class_="csv"), class_="table")

    def _title(self, place: int) -> Html:
        """A column's title, right-aligned if the column has numbers."""
        has_numbers = any(isinstance(row[place], int) for row in self.rows)
        return element("th", self.columns[place], scope="col", class_="number" if has_numbers else None)

    def as_csv(self) -> str:
        """RFC 4180, with a header line."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows([_plain(cell) for cell in row] for row in self.rows)
        return text.getvalue()


def _row(row: Sequence[Cell]) -> Html:
    first, *others = row
    cells: Iterable[Html] = (
        element("td", _shown(cell), class_="number" if isinstance(cell, int) else None) for cell in others
    )
    return element("tr", element("th", _shown(first), scope="row"), list(cells))


def _shown(cell: Cell) -> Html | str:
    if isinstance(cell, Link):
        return element("a", cell.text, href=cell.href)
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _plain(cell: Cell) -> object:
    text = cell.text if isinstance(cell, Link) else cell
    return "" if text is None else safe_cell(text)
