"""Collects all queries to Prometheus.

In: the committed dashboards, rules and runbooks. Out: queries, each with its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "helm" / "flagpost" / "alerts"
DASHBOARDS = ROOT / "helm" / "flagpost" / "dashboards"
RUNBOOKS = ROOT / "docs" / "runbooks"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One query."""

    place: str
    """The file, as docs/metrics.md names it."""
    what: str
    """The panel and its series' legend, the rule, or the annotation."""
    expr: str


@cache
def dashboards() -> dict[str, Document]:
    """The committed dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


@cache
def rules() -> dict[str, list[Document]]:
    """The rules by the names of their files."""
    return {path.stem: _rules_in(path) for path in sorted(ALERTS.glob("*.yaml"))}


def alerts() -> list[Document]:
    """The rules that alert."""
    return [rule for found in rules().values() for rule in found if "alert" in rule]


def recorded() -> set[str]:
    """The series that rules record."""
    return {rule["record"] for found in rules().values() for rule in found if "record" in rule}


def panels(dashboard: Document) -> list[Document]:
    """The panels of a dashboard, without its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def of_dashboards() -> list[Asked]:
    """The queries of panels and annotations."""
    return [asked for name, dashboard in dashboards().items() for asked in _in_dashboard(name, dashboard)]


def of_rules() -> list[Asked]:
    """The expressions of rules."""
    return [
        Asked(f"alerts/{name}", rule.get("alert") or rule["record"], rule["expr"])
        for name, found in rules().items()
        for rule in found
    ]


def of_runbooks() -> list[Asked]:
    """The queries in runbooks: fenced blocks of promql, in which blank lines separate the queries."""
    return [
        Asked(f"runbooks/{path.stem}", query.splitlines()[0], query)
        for path in sorted(RUNBOOKS.glob("*.md"))
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)
        for query in re.split(r"\n\s*\n", block.strip())
    ]


def everything() -> list[Asked]:
    """All queries."""
    return [*of_dashboards(), *of_rules(), *of_runbooks()]


def _rules_in(path: Path) -> list[Document]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def _in_dashboard(name: str, dashboard: Document) -> Iterator[Asked]:
    for annotation in dashboard["annotations"]["list"]:
        yield Asked(f"dashboards/{name}", f"annotation {annotation['name']}", annotation["expr"])
    for panel in panels(dashboard):
        for target in panel["targets"]:
            what = ": ".join(filter(None, (panel["title"], target["legendFormat"])))
            yield Asked(f"dashboards/{name}", what, target["expr"])
