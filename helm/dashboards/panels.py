"""Panels: what one rectangle of a dashboard shows, and its JSON.

In: a title, what it means and what to do about it, a unit, queries, thresholds. Out: Grafana's panel model
(schema version 39). The functions below make the kinds of panel there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Json = dict[str, Any]

DATASOURCE: Mapping[str, str] = {"type": "prometheus", "uid": "${datasource}"}

OK, WARN, BAD, PLAIN = "green", "orange", "red", "blue"

Thresholds = tuple[tuple[float | None, str], ...]
"""From which value on which colour; the first from None, the lowest there is."""

ANY: Thresholds = ((None, PLAIN),)
"""No value is better than another: what counts is how it changes."""
NONE_AT_ALL: Thresholds = ((None, OK), (1, BAD))
"""Anything but 0 is bad."""
NO_RATE: Thresholds = ((None, OK), (0.001, BAD))
"""The same of a rate a second: a few an hour count."""


def bad_from(warn: float, bad: float) -> Thresholds:
    """The less the better."""
    return ((None, OK), (warn, WARN), (bad, BAD))


def good_from(warn: float, good: float) -> Thresholds:
    """The more the better."""
    return ((None, BAD), (warn, WARN), (good, OK))


@dataclass(frozen=True, slots=True)
class Query:
    """One query, and what its series are called: `{{label}}` gives a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel."""

    kind: str
    """Grafana's type."""
    title: str
    description: str
    """What it shows, and what to think of it."""
    unit: str
    """Grafana's id of it."""
    thresholds: Thresholds
    queries: tuple[Query, ...]
    width: int
    """Of 24."""
    height: int
    runbook: str = ""
    """The alert whose runbook helps."""
    defaults: Json = field(default_factory=dict)
    """More of fieldConfig.defaults."""
    options: Json = field(default_factory=dict)
    instant: bool = False
    """Only the value at the end of the time that is looked at."""
    transformations: tuple[Json, ...] = ()

    def as_json(self, number: int, left: int, top: int) -> Json:
        """The panel at a place."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self._described(),
            "datasource": DATASOURCE,
            "gridPos": {"x": left, "y": top, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self.options,
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "transformations": list(self.transformations),
        }

    def _defaults(self) -> Json:
        steps = [{"value": value, "color": color} for value, color in self.thresholds]
        return {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}, **self.defaults}

    def _described(self) -> str:
        """With the runbook's name, of which the chart makes a link where it knows a place for it."""
        return f"{self.description} Runbook: {self.runbook}." if self.runbook else self.description

    def _target(self, place: int, query: Query) -> Json:
        return {
            "refId": "ABCDEFGH"[place],
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": self.instant,
            "range": not self.instant,
            "format": self.kind if self.kind in {"table", "heatmap"} else "time_series",
        }


def stat(
    title: str,
    description: str,
    expr: str,
    unit: str,
    thresholds: Thresholds,
    *,
    runbook: str = "",
    width: int = 4,
) -> Panel:
    """One number, coloured."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        thresholds=thresholds,
        queries=(Query(expr, ""),),
        width=width,
        height=4,
        runbook=runbook,
        instant=True,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "graphMode": "none",
            "textMode": "value",
        },
    )


_LINES: Json = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never"}
_AREAS: Json = {**_LINES, "fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}


def graph(
    title: str,
    description: str,
    unit: str,
    thresholds: Thresholds,
    *queries: Query,
    runbook: str = "",
) -> Panel:
    """Lines over time; thresholds, where there are any, are lines too."""
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        thresholds=thresholds,
        queries=queries,
        width=12,
        height=8,
        runbook=runbook,
        defaults=_drawn(_LINES, thresholds),
        options={
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def stack(
    title: str,
    description: str,
    unit: str,
    thresholds: Thresholds,
    *queries: Query,
    runbook: str = "",
) -> Panel:
    """Areas on top of each other: parts of a whole over time."""
    lines = graph(title, description, unit, thresholds, *queries, runbook=runbook)
    return replace(lines, defaults=_drawn(_AREAS, thresholds))


def _drawn(style: Json, thresholds: Thresholds) -> Json:
    shown = "dashed" if len(thresholds) > 1 else "off"
    return {
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": {**style, "thresholdsStyle": {"mode": shown}},
    }


def states(
    title: str, description: str, expr: str, legend: str, names: tuple[str, ...], runbook: str
) -> Panel:
    """Bars that tell a state over time: the value 0 is the first of `names` and good, the rest are bad."""
    mapping = {str(value): {"text": name, "index": value} for value, name in enumerate(names)}
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit="none",
        thresholds=bad_from(1, 2),
        queries=(Query(expr, legend),),
        width=12,
        height=8,
        runbook=runbook,
        defaults={
            "color": {"mode": "thresholds"},
            "mappings": [{"type": "value", "options": mapping}],
            "custom": {"fillOpacity": 70, "lineWidth": 0},
        },
        options={
            "mergeValues": True,
            "showValue": "auto",
            "legend": {"displayMode": "list", "placement": "bottom"},
        },
    )


def heatmap(title: str, description: str, unit: str, expr: str, *, runbook: str = "") -> Panel:
    """The buckets of a histogram over time."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        unit=unit,
        thresholds=ANY,
        queries=(Query(expr, "{{le}}"),),
        width=12,
        height=8,
        runbook=runbook,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": unit},
            "tooltip": {"mode": "single", "yHistogram": False},
            "legend": {"show": True},
        },
    )


def table(
    title: str,
    description: str,
    unit: str,
    thresholds: Thresholds,
    expr: str,
    *,
    runbook: str = "",
    width: int = 12,
) -> Panel:
    """A row a series, with its labels and its value now."""
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit=unit,
        thresholds=thresholds,
        queries=(Query(expr, ""),),
        width=width,
        height=8,
        runbook=runbook,
        instant=True,
        options={"showHeader": True, "cellHeight": "sm"},
        transformations=({"id": "organize", "options": {"excludeByName": {"Time": True}}},),
    )
