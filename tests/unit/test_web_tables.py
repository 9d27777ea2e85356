"""The page's HTML, its tables and their CSV."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.web.charts import Step, stacked_bars
from flagpost_consumer.web.html import element, joined
from flagpost_consumer.web.ids import Ids
from flagpost_consumer.web.tables import Link, Table
from flagpost_settings.visible import visible


class Read(HTMLParser):
    """The elements and the text that a browser would read."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_no_text_becomes_markup(text: str, attribute: str) -> None:
    read = Read(element("p", text, title=attribute))
    assert read.elements == [("p", {"title": visible(attribute)})]
    assert read.text == visible(text)


def test_attributes_are_written_as_in_html() -> None:
    assert element("label", "x", for_="a", class_="b") == '<label for="a" class="b">x</label>'
    assert element("input", required=True, hidden=False, value=None, aria_label="y") == (
        '<input required aria-label="y">'
    )
    assert joined("a", None, ["b", [1]]) == "ab1"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    table = Table("t", "T", ("Name",), [(name,), (Link(name, "/"),)])
    assert [row[0] for row in csv.reader(io.StringIO(table.as_csv(), newline=""))][1:] == [f"'{name}"] * 2


@given(st.lists(st.tuples(st.text("ab,\"'\n ;", max_size=5), st.integers(-5, 10**9)), max_size=5))
def test_csv_has_the_rows_of_the_table(rows: list[tuple[str, int]]) -> None:
    table = Table("t", "T", ("Name", "Count"), rows)
    read = list(csv.reader(io.StringIO(table.as_csv(), newline="")))
    assert read == [["Name", "Count"], *([name, str(count)] for name, count in rows)]


def test_a_table_has_headers_for_its_rows_and_columns() -> None:
    table = Table("flags", "Visitors", ("Flag", "Decided"), [("a", 1_234), ("b", None)], "flag=x%26y")
    read = Read(table.as_html())
    assert ("th", {"scope": "row"}) in read.elements
    assert ("th", {"scope": "col", "class": "number"}) in read.elements
    assert ("a", {"href": "/csv/flags?flag=x%26y"}) in read.elements
    assert "1,234" in read.text
    assert "Nobody." in Table("t", "T", ("a",), []).as_html(empty="Nobody.")


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=60))
def test_bars_are_stacked_and_fit(counts: list[tuple[int, int]]) -> None:
    drawn = stacked_bars("t", ("up", "down"), [Step(str(n), each) for n, each in enumerate(counts)])
    bars = [{**attributes} for tag, attributes in Read(drawn).elements if tag == "rect"]
    assert len(bars) == sum(count > 0 for each in counts for count in each)
    for bar in bars:
        assert float(bar["y"] or "") >= -0.02
        assert float(bar["x"] or "") + float(bar["width"] or "") <= 640.02
        assert float(bar["y"] or "") + float(bar["height"] or "") <= 120.02
    most = max(sum(each) for each in counts)
    heights = sum(float(bar["height"] or "") for bar in bars)
    assert most == 0 or heights == pytest.approx(
        120 * sum(map(sum, counts)) / most, abs=0.01 * (len(bars) + 1)
    )


def test_hidden_ids_are_equal_for_the_same_person_and_reveal_nothing() -> None:
    ids, others = Ids(are_shown=False), Ids(are_shown=False)
    assert ids.shown("ada") == ids.shown("ada") != ids.shown("bob")
    assert ids.shown("ada") != others.shown("ada")
    assert ids.shown(None) is None
    assert Ids(are_shown=True).shown("ada") == "ada"
