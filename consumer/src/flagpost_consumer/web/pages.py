"""The pages, as HTML.

In: the state of the reading, the consumers' reports, the answers to questions. Out: whole documents. Every number
comes from `reports`, which also makes the CSV files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from flagpost_consumer import __version__
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.terminal.times import moment_text
from flagpost_consumer.web.aggregates import View
from flagpost_consumer.web.charts import stacked_bars
from flagpost_consumer.web.following import State
from flagpost_consumer.web.html import Child, Html, element, joined
from flagpost_consumer.web.live import COLUMNS, Live
from flagpost_consumer.web.reports import Reports, ratios_of, story

SHORTENED: Final = (
    "The window is shorter than web.window_seconds, because all of it would need more memory than web.max_bytes. "
    "Earlier events are not counted."
)
NOTHING: Final = "Kafka has no event of this visitor: none was published within the topics' retention time."
NAVIGATION: Final = (("/", "Flags"), ("/dead-letters", "Dead letters"), ("/explain", "Explain a visitor"))
RATES: Final = (
    (Outcome.DELIVERED.value, "delivered a second"),
    (Outcome.DUPLICATE.value, "duplicates a second"),
    (Outcome.DROPPED.value, "dropped a second"),
    (Outcome.DEAD_LETTERED.value, "dead-lettered a second"),
    ("pending", "pending now"),
)


class Pages:
    """Writes the pages."""

    def __init__(self, reports: Reports, live: Live) -> None:
        self._reports = reports
        self._live = live

    def overview(self, state: State) -> Html:
        """Present traffic, each flag, Pendo's state."""
        view = state.view
        if view is None:
            return document("Flags", "/", _reading(state), refresh=True)
        reports = self._reports
        return document(
            "Flags",
            "/",
            _stand(state, view),
            element("p", story(view), class_="story"),
            *_warnings(state, view),
            reports.flags(view).as_html(empty="No decision has been published in this window."),
            element(
                "div",
                element(
                    "section",
                    element("h2", "Pendo, as the consumers see it"),
                    self._pendo(),
                    aria_label="Pendo",
                ),
                element(
                    "section",
                    element("h2", "Dead letters"),
                    reports.letters(view).as_html(empty="There are none."),
                    aria_label="Dead letters",
                ),
                class_="columns",
            ),
            self._live_part(view),
            element("h2", "All deliveries"),
            reports.deliveries(view).as_html(),
        )

    def flag(self, state: State, key: str) -> Html | None:
        """One flag; None: there is no such flag."""
        view = state.view
        if view is None:
            return document(key, "", _reading(state), refresh=True)
        if key not in view.flags:
            return None
        reports = self._reports
        charts = [
            stacked_bars(title, ("delivered", "lost", "pending"), steps)
            for title, steps in reports.over_time(view, key)
        ]
        return document(
            f"Flag {key}",
            "",
            _stand(state, view),
            reports.variations(view, key).as_html(),
            element("h2", "Sample ratio"),
            *_ratios(view, key),
            element("h2", "Why visitors were lost"),
            reports.reasons(view, key).as_html(empty="No visitor was lost."),
            element("h2", "Over time"),
            element("p", "Visitors who got a decision in each step, by their present state."),
            element("div", charts, class_="columns"),
            reports.steps(view, key).as_html(),
            element("h2", "Deliveries of track events"),
            reports.deliveries_of(view, key).as_html(),
        )

    def dead_letters(self, state: State, reason: str | None) -> Html:
        """The newest dead letters, of one reason or of all."""
        view = state.view
        if view is None:
            return document("Dead letters", "/dead-letters", _reading(state), refresh=True)
        reports = self._reports
        title = "Dead letters" if reason is None else f"Dead letters: {reason}"
        return document(
            title,
            "/dead-letters",
            _stand(state, view),
            reports.letters(view).as_html(empty="There are none."),
            element("h2", "The newest that were not replayed"),
            reports.newest_letters(view, reason).as_html(empty="There are none."),
        )

    def dead_letter(self, found: dict[str, Any]) -> Html:
        """One dead letter, opened."""
        told = [
            joined(element("dt", name), element("dd", value)) for name, value in self._reports.letter(found)
        ]
        value = self._reports.letter_value(found)
        return document(
            f"Dead letter {found['partition']}/{found['offset']}",
            "",
            element("dl", told),
            element("h2", "Content"),
            element("p", "Hidden, because it is about one person. The setting web.show_ids shows it.")
            if value is None
            else element("pre", lines_of(value), tabindex=0),
        )

    def explain(self, found: Mapping[str, Any] | None) -> Html:
        """A form for a visitor's id, and the result."""
        asked = "" if found is None else str(found["visitor"])
        form = element(
            "form",
            element(
                "div",
                element("label", "Visitor id, as your services send it", for_="visitor"),
                element(
                    "input",
                    id="visitor",
                    name="visitor",
                    value=asked,
                    required=True,
                    maxlength=1000,
                    autocomplete="off",
                    spellcheck="false",
                ),
            ),
            element("button", "Explain", type="submit"),
            action="/explain",
            method="get",
        )
        return document("Explain a visitor", "/explain", form, self._explained(found))

    def _explained(self, found: Mapping[str, Any] | None) -> Child:
        if found is None:
            return element("p", "This reads the visitor's partition of the topics, and takes a few seconds.")
        parts = []
        if found["suppressed"]:
            parts.append(
                element("p", "The visitor is suppressed: nothing is sent any more.", class_="warning")
            )
        if found["records"]:
            parts.append(self._reports.explained(found).as_html())
        else:
            parts.append(element("p", NOTHING))
        return joined(*parts)

    def _pendo(self) -> Child:
        reports = self._reports
        if not reports.consumers.are_known:
            return element(
                "p", "No consumer is asked: list the consumers' addresses in the setting web.consumers."
            )
        return reports.pendo().as_html(empty="No consumer has answered yet.")

    def _live_part(self, view: View) -> Html:
        """The live part, already filled with the present numbers, so that it also works without JavaScript."""
        numbers = self._live.numbers(view)
        rates = [
            joined(element("dt", label), element("dd", numbers[name], id=f"live-{name}"))
            for name, label in RATES
        ]
        rows = [
            element("tr", element("th", row[0], scope="row"), [element("td", text) for text in row[1:]])
            for row in map(self._live.row, view.recent)
        ]
        head = element("tr", [element("th", title, scope="col") for title in COLUMNS])
        table = element(
            "table",
            element("caption", "The latest settlements"),
            element("thead", head),
            element("tbody", rows, id="live-rows"),
        )
        scrolled = element(
            "div", table, class_="scroll", tabindex=0, role="region", aria_label="The latest settlements"
        )
        return element(
            "section",
            element("h2", "Live traffic", id="live-title"),
            element(
                "p",
                element("button", "Pause", id="live-pause", type="button", hidden=True),
                " ",
                element("span", "as it was when the page was loaded", id="live-status", role="status"),
            ),
            element("dl", rates),
            scrolled,
            id="live",
            aria_labelledby="live-title",
        )


def document(title: str, here: str, *content: Child, refresh: bool = False) -> Html:
    """A whole document; `refresh`: it reloads itself soon, because there is nothing to see yet."""
    links = [
        element("li", element("a", text, href=href, aria_current="page" if href == here else None))
        for href, text in NAVIGATION
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", f"{title} - Flagpost"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="refresh", content="2") if refresh else None,
        element("link", rel="stylesheet", href="/static/style.css"),
        element("link", rel="icon", href="/static/icon.svg"),
        element("script", src="/static/live.js", defer=True),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("p", "Flagpost"), element("nav", element("ul", links), aria_label="Pages")),
        element("main", element("h1", title), *content, id="content", tabindex=-1),
        element("footer", element("p", f"Flagpost {__version__}. This page is read-only.")),
    )
    return Html("<!doctype html>" + element("html", head, body, lang="en"))


def lines_of(text: str) -> Html:
    """A text whose line breaks are kept."""
    return Html("\n".join(joined(line) for line in text.split("\n")))


def notice(title: str, text: str, here: str = "") -> Html:
    """A document with one sentence."""
    return document(title, here, element("p", text))


def _reading(state: State) -> Html:
    """What is shown until there are complete numbers."""
    wrong = element("p", state.wrong, class_="bad", role="alert") if state.wrong else None
    return joined(element("p", f"The topics are being read: {state.read:.0%} so far.", role="status"), wrong)


def _stand(state: State, view: View) -> Html:
    told: list[Child] = ["From ", _time(view.since_ms), " to ", _time(view.as_of_ms), ". Times are UTC."]
    if state.read < 1:
        told.append(f" The window is being read again ({state.read:.0%}); until then these numbers stay.")
    parts = [element("p", told, class_="state")]
    if state.shortened:
        parts.append(element("p", SHORTENED, class_="warning", role="status"))
    if state.wrong:
        old = f"The topics cannot be read, so these numbers are old: {state.wrong}"
        parts.append(element("p", old, class_="warning", role="alert"))
    return joined(*parts)


def _time(at_ms: int) -> Html:
    """A moment for people, and exactly for programs."""
    exactly = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return element("time", moment_text(at_ms), datetime=exactly)


def _ratios(view: View, flag: str) -> list[Html]:
    found = [
        element("p", text, class_="warning" if is_warning else None)
        for text, is_warning in ratios_of(view, flag)
    ]
    return found or [
        element("p", "No experiment of this flag has two variations to compare.", class_="empty")
    ]


def _warnings(state: State, view: View) -> Sequence[Html]:
    found = []
    if view.unexplained:
        found.append(
            f"{view.unexplained:,} deliveries are unexplained: the group committed past them, but the ledger does "
            "not say how they ended. flagpost reconcile lists them."
        )
    if state.damaged:
        found.append(
            f"{state.damaged:,} records of the ledger cannot be read; the deliveries in them count as unexplained or "
            "pending."
        )
    if view.lost_offsets:
        found.append(f"{view.lost_offsets:,} offsets were lost before the group read them.")
    return [element("p", text, class_="warning") for text in found]
