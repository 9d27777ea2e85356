"""The tables of the page and of its CSV files, and the sentences about them.

In: a `View`, the consumers' reports. Out: tables. Every number of the page is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from flagpost_consumer.adapters.kafka.dead_letter_writer import HEADER_PREFIX
from flagpost_consumer.commands.reconcile.counting import Counts, Row
from flagpost_consumer.commands.reconcile.ratio_words import ratio_remark, ratio_warnings
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.core.outcomes import PENDING
from flagpost_consumer.terminal.times import moment_text
from flagpost_consumer.web.aggregates import View
from flagpost_consumer.web.charts import Step
from flagpost_consumer.web.consumers import Consumers
from flagpost_consumer.web.ids import Ids
from flagpost_consumer.web.tables import Cell, Link, Table
from flagpost_settings.visible import visible_json

OFF: Final = "off"
NOBODY: Final = VisitorCounts()
NONE: Final = Counts()
DELIVERIES: Final = (
    "published",
    "delivered",
    "duplicate",
    "dropped",
    "dead_lettered",
    "replayed",
    "sent_again",
    "pending",
    "unexplained",
)
COUNT_TITLES: Final = tuple(name.replace("_", " ").capitalize() for name in DELIVERIES)
WHAT_TO_DO: Final = {
    "ok": "",
    "throttled": "Pendo limits requests; they are sent more slowly until it accepts more.",
    "unreachable": "Pendo does not answer; deliveries wait and are retried; see docs/troubleshooting.md.",
    "unauthorized": "Pendo refuses the key; set the right one, which is used at once.",
}


class Reports:
    """Makes the tables."""

    def __init__(self, consumers: Consumers, ids: Ids) -> None:
        self.consumers = consumers
        self._ids = ids

    def table(self, name: str, query: Mapping[str, str], view: View) -> Table | None:
        """The table of a CSV file; None: there is no such table, or no such flag."""
        flag = query.get("flag", "")
        whole: dict[str, Callable[[View], Table]] = {
            "flags": self.flags,
            "deliveries": self.deliveries,
            "dead-letters-by-reason": self.letters,
            "dead-letters": lambda view: self.newest_letters(view, query.get("reason")),
            "pendo": lambda _: self.pendo(),
        }
        of_flag: dict[str, Callable[[View, str], Table]] = {
            "variations": self.variations,
            "reasons": self.reasons,
            "steps": self.steps,
            "deliveries-of": self.deliveries_of,
        }
        if name in whole:
            return whole[name](view)
        return of_flag[name](view, flag) if name in of_flag and flag in view.flags else None

    def explained(self, found: Mapping[str, Any]) -> Table:
        """What became of a visitor's events, a row for each delivery."""
        rows: list[tuple[Cell, ...]] = []
        for record in found["records"]:
            at = record["produced_at"] or record["occurred_at"]
            what = _what(record)
            for delivery in record["deliveries"]:
                waits = delivery["waits"]
                why = delivery["detail"] if waits is None else waits["detail"]
                status = delivery["status"]
                until = None if waits is None else waits["not_before"]
                rows.append(
                    (
                        _moment(at),
                        what,
                        delivery["kind"],
                        delivery["state"],
                        delivery["reason"],
                        None if why is None else self._ids.why(why, status, found["visitor"]),
                        _moment(delivery["settled_at"]),
                        _moment(until),
                        delivery["attempts"],
                        status,
                    )
                )
        columns = (
            "Published", "Event", "Delivery", "State", "Reason", "Why", "Ended", "Waits until", "Attempts", "Status",
        )  # fmt: skip
        return Table("explain", "What became of each event", columns, rows, _query(visitor=found["visitor"]))

    def letter(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """One dead letter: names and values. Personal values are left out if ids are hidden."""
        key, detail = found["key"], self._ids.why(found["detail"], found["status"], found["key"])
        told = [
            (name.replace("_", " "), "-" if value is None else str(value))
            for name, value in (found | {"detail": detail}).items()
            if name not in ("key", "headers", "value", "at")
        ]
        told += [
            (f"header {name}", self._ids.shown(str(value)) or "")
            for name, value in found["headers"].items()
            if not name.startswith(HEADER_PREFIX)
        ]
        return [("dead-lettered", moment_text(found["at"])), ("key", self._ids.shown(key) or "-"), *told]

    def letter_value(self, found: Mapping[str, Any]) -> str | None:
        """The content of the record; None if ids are hidden: it is about one person."""
        if not self._ids.are_shown:
            return None
        return visible_json(orjson.dumps(found["value"], option=orjson.OPT_INDENT_2))

    def flags(self, view: View) -> Table:
        """Visitors, a row for each variation of each flag."""
        columns = ("Flag", "Variation", *VISITOR_TITLES, "Sample ratio")
        rows = [
            (
                Link(flag, _address("/flag", key=flag)),
                _named(variation),
                *_visitor_cells(view, (flag, variation)),
                verdict_of(view, flag),
            )
            for flag, variation in _rows(view)
        ]
        return Table("flags", "Visitors by flag and variation", columns, rows)

    def variations(self, view: View, flag: str) -> Table:
        """The same for one flag."""
        rows = [
            (_named(row[1]), *_visitor_cells(view, row), _share(view.visitors.get(row, NOBODY)))
            for row in _rows(view)
            if row[0] == flag
        ]
        columns = ("Variation", *VISITOR_TITLES, "Delivered, in percent")
        return Table("variations", f"Visitors of {flag}", columns, rows, _query(flag=flag))

    def reasons(self, view: View, flag: str) -> Table:
        """Lost visitors by variation, a row for each reason. They add up to the numbers of the variations."""
        variations = [row for row in _rows(view) if row[0] == flag]
        lost = {row: view.visitors.get(row, NOBODY).by_reason for row in variations}
        reasons = list(dict.fromkeys(reason for by_reason in lost.values() for reason in by_reason))
        rows: list[tuple[Cell, ...]] = [
            (reason, *(lost[row].get(reason, 0) for row in variations)) for reason in reasons
        ]
        columns = ("Reason", *(_named(variation) for _, variation in variations))
        return Table(
            "reasons", f"Visitors of {flag} who were not delivered", columns, rows, _query(flag=flag)
        )

    def over_time(self, view: View, flag: str) -> Iterator[tuple[str, list[Step]]]:
        """For each variation: the visitors decided in each step, by their present state."""
        for row in _rows(view):
            if row[0] == flag:
                steps = view.over_time.get(row, {})
                yield (
                    _named(row[1]),
                    [
                        Step(_step_text(view, number), _standing(steps.get(number, NOBODY)))
                        for number in range(_last_step(view) + 1)
                    ],
                )

    def steps(self, view: View, flag: str) -> Table:
        """The same as a table, without empty steps."""
        rows: list[tuple[Cell, ...]] = [
            (_step_text(view, number), _named(row[1]), counts.decided, *_standing(counts))
            for row in _rows(view)
            if row[0] == flag
            for number, counts in sorted(view.over_time.get(row, {}).items())
        ]
        columns = ("Step begins", "Variation", *VISITOR_TITLES)
        return Table("steps", f"Visitors of {flag} over time", columns, rows, _query(flag=flag))

    def deliveries(self, view: View) -> Table:
        """Everything, in deliveries."""
        parts = (
            ("Track events (decisions and others)", view.totals),
            ("of these without a flag", view.other),
            ("Metadata", view.metadata),
        )
        rows: list[tuple[Cell, ...]] = [(name, *_counts(counts)) for name, counts in parts]
        return Table("deliveries", "Deliveries", ("Deliveries", *COUNT_TITLES), rows)

    def deliveries_of(self, view: View, flag: str) -> Table:
        """The deliveries of one flag."""
        rows: list[tuple[Cell, ...]] = [
            (_named(row[1]), *_counts(view.rows.get(row, NONE))) for row in _rows(view) if row[0] == flag
        ]
        return Table(
            "deliveries-of", f"Track events of {flag}", ("Variation", *COUNT_TITLES), rows, _query(flag=flag)
        )

    def letters(self, view: View) -> Table:
        """Dead letters by reason."""
        rows: list[tuple[Cell, ...]] = [
            (
                Link(each.reason, _address("/dead-letters", reason=each.reason)),
                each.kind,
                each.waiting,
                each.replayed,
            )
            for each in view.letters
        ]
        columns = ("Reason", "Kind", "Waiting", "Replayed")
        return Table("dead-letters-by-reason", "Dead letters by reason", columns, rows)

    def newest_letters(self, view: View, reason: str | None) -> Table:
        """The newest, one by one."""
        rows: list[tuple[Cell, ...]] = []
        for letter in view.newest_letters:
            if reason in (None, letter.reason):
                key = None if letter.key is None else letter.key.decode("utf-8", "backslashreplace")
                place = Link(str(letter.place), _address("/dead-letter", place=str(letter.place)))
                detail = self._ids.why(letter.detail, letter.status, key)
                rows.append(
                    (
                        place,
                        moment_text(letter.at),
                        letter.reason,
                        letter.kind,
                        self._ids.shown(key),
                        letter.attempts,
                        letter.status,
                        detail,
                    )
                )
        columns = ("Place", "Dead-lettered", "Reason", "Kind", "Key", "Attempts", "Status", "Detail")
        query = "" if reason is None else _query(reason=reason)
        return Table("dead-letters", "Dead letters", columns, rows, query)

    def pendo(self) -> Table:
        """Pendo's state, a row for each consumer."""
        rows: list[tuple[Cell, ...]] = []
        for each in self.consumers.told:
            if each.wrong is not None:
                rows.append((each.address, None, None, None, None, each.wrong))
                continue
            told = [WHAT_TO_DO.get(state, "") for state in dict.fromkeys(each.states.values())]
            told += [f"stalled partitions: {reason}" for reason in each.stalled]
            states = (each.states["track"], each.states["metadata"])
            rows.append((each.address, *states, each.partitions, each.pending, " ".join(filter(None, told))))
        columns = ("Consumer", "Track", "Metadata", "Partitions", "Pending", "Remark")
        return Table("pendo", "Pendo's state", columns, rows)


VISITOR_TITLES: Final = ("Decided", "Delivered", "Lost", "Pending")


def story(view: View) -> str:
    """The present state, in two sentences that can be read aloud."""
    published = sum(each.published for each in view.rows.values())
    decided = sum(each.decided for each in view.visitors.values())
    delivered = sum(each.delivered for each in view.visitors.values())
    pending = sum(each.by_reason.get(PENDING, 0) for each in view.visitors.values())
    return (
        f"{published:,} decisions were published. They showed {decided:,} visitors a variation, each counted once "
        f"by flag and variation: {delivered:,} of them are delivered to Pendo, {pending:,} are pending, and "
        f"{decided - delivered - pending:,} are lost; each flag's page shows the reasons."
    )


def verdict_of(view: View, flag: str) -> str | None:
    """The sample ratio of a flag's experiments in a word."""
    found = [ratio for ratio in view.ratios if ratio.flag_key == flag]
    if not found:
        return None
    is_off = any(ratio.skewed or ratio.delivered_skewed for ratio in found)
    return "not as expected: see the flag" if is_off else "as expected"


def ratios_of(view: View, flag: str) -> Iterator[tuple[str, bool]]:
    """The sample ratio of each of a flag's experiments in sentences, and whether each is a warning."""
    for ratio in view.ratios:
        if ratio.flag_key == flag:
            warnings = list(ratio_warnings(ratio))
            yield from ((text, True) for text in warnings)
            if not warnings:
                yield ratio_remark(ratio), False


def _rows(view: View) -> list[Row]:
    return sorted(view.rows, key=lambda row: (row[0], row[1] or ""))


def _named(variation: str | None) -> str:
    return "(none)" if variation is None else variation


def _visitor_cells(view: View, row: Row) -> tuple[int, int, int, int]:
    counts = view.visitors.get(row, NOBODY)
    return counts.decided, *_standing(counts)


def _standing(counts: VisitorCounts) -> tuple[int, int, int]:
    """Delivered, lost, pending."""
    pending = counts.by_reason.get(PENDING, 0)
    return counts.delivered, counts.lost - pending, pending


def _share(counts: VisitorCounts) -> str | None:
    return f"{100 * counts.delivered / counts.decided:.1f}" if counts.decided else None


def _counts(counts: Counts) -> tuple[int, ...]:
    return tuple(getattr(counts, name) for name in DELIVERIES)


def _last_step(view: View) -> int:
    return max(0, (view.as_of_ms - view.since_ms - 1) // view.step_ms)


def _step_text(view: View, number: int) -> str:
    return moment_text(view.since_ms + number * view.step_ms)


def _what(record: Mapping[str, Any]) -> str:
    """A record's event in a few words."""
    event = record["event"]
    if event is None:
        return "not readable" if record["unreadable"] else "Kafka no longer has the record"
    if event.get("type") == "decision":
        shown = event["variation_key"] if event["enabled"] else OFF
        return f"decision {event['flag_key']}: {shown or '(no variation)'}"
    return " ".join(filter(None, (event["type"], event.get("event"))))


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else moment_text(at_ms)


def _query(**query: str) -> str:
    return urlencode(query, errors="surrogatepass")


def _address(path: str, **query: str) -> str:
    return f"{path}?{_query(**query)}"
