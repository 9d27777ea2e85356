"""Compares what the SDKs told Optimizely with what their services published.

In: the reports that publishers write to the topic of impressions (flagpost_publisher.impressions), and the decisions
of the events topic. Out: by flag and type of rule, how many impressions there are and what became of their decisions.
If all is well, impressions = published + duplicates + refused + failed, except for a minute at either end of the
window. No I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import orjson

from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.reconcile.lost_at_publishers import (
    LostAtPublishers,
    Service,
    lost_in,
    text_or_none,
)
from flagpost_consumer.core.splits.experiments import Splits, splits_in
from flagpost_schemas import DecisionEvent, Source

FATES = ("duplicates", "refused", "failed")
"""For decisions that are not on the topic, the words in reports."""


Decided: TypeAlias = tuple[str, str | None]
"""A flag, and the type of the rule that decided."""


@dataclass(slots=True)
class Compared:
    """What is known of the decisions about a flag by rules of one type."""

    impressions: int = 0
    """Impressions that the SDK sent."""
    published: int = 0
    """Decisions on the events topic for which an impression was sent."""
    duplicates: int = 0
    """Not published by the publisher: the visitor's last decision was equal."""
    refused: int = 0
    failed: int = 0

    @property
    def difference(self) -> int:
        """Impressions that cannot be accounted for."""
        return self.impressions - self.published - self.duplicates - self.refused - self.failed


@dataclass(slots=True)
class _Instance:
    """A process, and its reports that were read."""

    sequences: set[int] = field(default_factory=set)

    @property
    def missing(self) -> int:
        """The number of missing reports between those that were read."""
        return max(self.sequences) - min(self.sequences) + 1 - len(self.sequences)


class ImpressionBooks:
    """Counts the reports and the decisions of one window, in any order."""

    def __init__(self, window: Window, *, holds_lists: bool = False) -> None:
        """A report belongs to the window in which it ends. `holds_lists`: whether `lost.end_of` will be called."""
        self._window = window
        self._instances: defaultdict[str, _Instance] = defaultdict(_Instance)
        self._reporting: set[Service] = set()
        self._told: defaultdict[Decided, Compared] = defaultdict(Compared)
        self._published: Counter[tuple[Service, Decided]] = Counter()
        self.uncounted = 0
        """Impressions for which a process had no room."""
        self.damaged = 0
        """Records that are not reports."""
        self.lost = LostAtPublishers()
        """What publishers refused, and what Kafka did not take."""
        self._holds_lists = holds_lists
        self.splits = Splits()
        """The traffic allocations of experiments in the reports."""

    def publish(self, decision: DecisionEvent) -> None:
        """A decision that is on the events topic for the first time."""
        if decision.decision_event_dispatched:
            source = decision.source or Source()
            service = Service(source.service, source.environment)
            self._published[service, (decision.flag_key, decision.rule_type)] += 1

    def add(self, value: bytes | None) -> None:
        """Take in a record of the topic of impressions; anything that is not ours counts as damaged."""
        try:
            report = orjson.loads(value or b"")
            self._add(report)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.damaged += 1

    def rows(self) -> dict[Decided, Compared]:
        """By flag and type of rule, for the services that report."""
        rows = {key: Compared(**asdict(told)) for key, told in self._told.items()}
        for (service, key), count in self._published.items():
            if service in self._reporting:
                rows.setdefault(key, Compared()).published += count
        return dict(sorted(rows.items(), key=lambda row: (row[0][0], row[0][1] or "")))

    @property
    def reports(self) -> int:
        """How many reports were read."""
        return sum(len(instance.sequences) for instance in self._instances.values())

    @property
    def missing(self) -> int:
        """How many reports were not read, although later ones were."""
        return sum(instance.missing for instance in self._instances.values())

    def silent(self) -> dict[Service, int]:
        """Services that publish but do not report, and how many decisions they published."""
        silent: Counter[Service] = Counter()
        for (service, _), count in self._published.items():
            if service not in self._reporting:
                silent[service] += count
        return dict(silent)

    def _add(self, report: Mapping[str, Any]) -> None:
        """Raises for a report of another form, before anything of it is counted."""
        until, instance, sequence = int(report["until"]), str(report["instance"]), int(report["sequence"])
        told = [*_impressions_in(report), *_unpublished_in(report)]
        uncounted = int(report["uncounted"])
        splits = list(splits_in(report))
        service = Service(text_or_none(report["service"]), text_or_none(report["environment"]))
        lost = list(lost_in(report, service))
        if self._holds_lists and self._touches_window(int(report["since"]), until):
            for row in lost:
                self.lost.hold_list(instance, row)
        if not self._is_in_window(until) or sequence in self._instances[instance].sequences:
            return
        self._instances[instance].sequences.add(sequence)
        self._reporting.add(service)
        self.uncounted += uncounted
        for experiment, shares in splits:
            self.splits.tell(experiment, shares, until)
        for row in lost:
            self.lost.count(row)
        for key, name, count in told:
            compared = self._told[key]
            setattr(compared, name, getattr(compared, name) + count)

    def _touches_window(self, since: int, until: int) -> bool:
        """Whether part of a report's time is in the window: a report that Kafka did not take for long ends late."""
        first, end = self._window.since_ms, self._window.until_ms
        return (first is None or until >= first) and (end is None or since < end)

    def _is_in_window(self, until: int) -> bool:
        first, end = self._window.since_ms, self._window.until_ms
        return (first is None or until >= first) and (end is None or until < end)


def _impressions_in(report: Mapping[str, Any]) -> Iterator[tuple[Decided, str, int]]:
    for row in report["impressions"]:
        yield _decided(row), "impressions", int(row["count"])


def _unpublished_in(report: Mapping[str, Any]) -> Iterator[tuple[Decided, str, int]]:
    for row in report["unpublished"]:
        if row["fate"] not in FATES:
            raise ValueError(row["fate"])
        yield _decided(row), row["fate"], int(row["count"])


def _decided(row: Mapping[str, Any]) -> Decided:
    return str(row["flag_key"]), text_or_none(row["rule_type"])
