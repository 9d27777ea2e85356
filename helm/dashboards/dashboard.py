"""A dashboard: panels in rows, and what all dashboards have in common.

In: rows of panels. Out: Grafana's dashboard model, with variables, annotations, and links to the others. The chart
adds those to the runbooks, if it is told where they can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dashboards.panels import DATASOURCE, Json, Panel
from dashboards.promql import series

SCHEMA_VERSION = 39
"""Of Grafana 10.3 and later."""
COLUMNS = 24
TAG = "flagpost"
BUILDS = '__name__=~"flagpost_(gateway_)?build_info"'
"""What every consumer and every gateway has."""
ALL_PROGRAMS = '__name__=~"flagpost_((gateway_)?build_info|publisher_accepted_total)"'
"""And every service with a publisher, which may run elsewhere."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `name` is that of its file, and with a prefix its uid."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def uid(self) -> str:
        """What links and provisioning know it by."""
        return f"{TAG}-{self.name}"

    def as_json(self) -> Json:
        """The document that Grafana imports."""
        return {
            "uid": self.uid,
            "title": f"Flagpost / {self.title}",
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "links": _LINKS,
            "annotations": {"list": _annotations()},
            "templating": {"list": _variables()},
            "panels": list(self._place()),
        }

    def _place(self) -> Iterator[Json]:
        """Rows from top to bottom; panels from left to right, and on where there is no more room."""
        number, top = 1, 0
        for row in self.rows:
            yield _header(row.title, number, top)
            number, top = number + 1, top + 1
            left = height = 0
            for panel in row.panels:
                if left + panel.width > COLUMNS:
                    left, top, height = 0, top + height, 0
                yield panel.as_json(number, left, top)
                number, left, height = number + 1, left + panel.width, max(height, panel.height)
            top += height


def _header(title: str, number: int, top: int) -> Json:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


_LINKS: list[Json] = [
    {
        "title": "Flagpost",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    },
]


def _annotations() -> list[Json]:
    started = series("process_start_time_seconds") + " * 1000"
    version = f"on (namespace, release, pod) group_left (version) {series('flagpost_build_info')}"
    return [
        # The newest start of each version: a deployment shows as its pods come up, a restart as one of them.
        _annotation(
            "Deployments",
            "blue",
            f"max by (namespace, release, version) ({started} * {version})",
            "{{release}}: a consumer of version {{version}} started",
            value_is_time=True,
        ),
        _annotation(
            "Rebalances",
            "purple",
            f"sum by (namespace, release) (increase({series('flagpost_rebalances_total')}[1m])) > 0",
            "{{release}}: partitions changed hands",
        ),
    ]


def _annotation(name: str, color: str, expr: str, text: str, *, value_is_time: bool = False) -> Json:
    return {
        "name": name,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "datasource": DATASOURCE,
        "expr": expr,
        "step": "60s",
        "titleFormat": name,
        "textFormat": text,
        "useValueForTime": "on" if value_is_time else "",
    }


def _variables() -> list[Json]:
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "current": {},
        },
        _variable("namespace", ALL_PROGRAMS),
        _variable("release", f'{BUILDS},namespace=~"$namespace"'),
        _variable("pod", f'{BUILDS},namespace=~"$namespace",release=~"$release"'),
    ]


def _variable(label: str, matchers: str) -> Json:
    query = f"label_values({{{matchers}}}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,  # when the time range changes: pods come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also where a label is missing
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }
