"""Writes docs/metrics.md: every metric of every program, and where it is used.

In: the programs' own /metrics, the dashboards, rules and runbooks. Out: the page; `make docs-metrics` writes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from observability.asked import ROOT, Asked, of_dashboards, of_rules, rules
from observability.programs_metrics import Metric, Programs, scrape_all, sentence
from observability.promql import selectors

PAGE = ROOT / "docs" / "metrics.md"
MOST_VALUES = 16
"""If a label has more values than this, the page shows only their number."""

UNUSED: Mapping[str, str] = {
    "process_virtual_memory_bytes": "address space, not memory: resident memory tells more",
}
"""Metrics that no dashboard and no rule uses, and why they exist all the same."""

_TITLES = {
    "consumer": ("Consumer", "`flagpost consume`, `/metrics` on `admin.port` (8080)."),
    "gateway": ("Gateway", "`flagpost-gateway`, `/metrics` on `gateway.admin_port` (8082)."),
    "publisher": ("Publisher", "In services that register `flagpost_publisher.metrics.PublisherCollector`."),
}
_INTRODUCTION = """# Metrics

Made by `make docs-metrics` from the programs' own `/metrics`; a test holds that it is up to date. Series of labels
with known values exist from the start, at 0. No label ever holds an id. Prometheus adds the target's labels
`namespace`, `release` and `pod` ([how](../helm/flagpost/alerts/README.md)). Counters also have a `…_created` series
where Prometheus asks for OpenMetrics. In the last column, dashboards are in italics.
"""


def page(programs: Programs) -> str:
    """The whole page."""
    looked_at = places(of_dashboards() + of_rules())
    sections = [_section(name, metrics, looked_at) for name, metrics in programs.items()]
    return "\n".join([_INTRODUCTION, *sections, _recorded_section()])


def places(asked: Iterable[Asked]) -> dict[str, set[str]]:
    """The places whose queries use each series."""
    found: dict[str, set[str]] = {}
    for one in asked:
        for selector in selectors(one.expr):
            found.setdefault(selector.metric, set()).add(_place(one))
    return found


def seen_in(metric: Metric, looked_at: Mapping[str, set[str]]) -> set[str]:
    """The places whose queries use any of a metric's series."""
    return set().union(*(looked_at.get(name, set()) for name in metric.series))


def _place(asked: Asked) -> str:
    """The name of a dashboard, an alert or a recorded series, as the page shows it."""
    folder, name = asked.place.split("/")
    if folder == "dashboards":
        return f"_{name}_"
    if asked.what.startswith("Flagpost"):
        return asked.what
    return f"`{re.sub(r'ratio_rate.*', 'ratio_rate…', asked.what)}`"


def _section(program: str, metrics: Iterable[Metric], looked_at: Mapping[str, set[str]]) -> str:
    title, where = _TITLES[program]
    rows = [_row(metric, seen_in(metric, looked_at)) for metric in metrics]
    head = "| metric | type | labels | what | looked at in |\n|---|---|---|---|---|"
    return "\n".join([f"## {title}\n\n{where}\n", head, *rows, ""])


def _row(metric: Metric, seen: set[str]) -> str:
    labels = "; ".join(_label(name, values) for name, values in metric.labels.items() if name != "le")
    used = ", ".join(sorted(seen)) or UNUSED.get(metric.name, "")
    name = metric.series[0] if metric.type == "counter" else metric.name
    return f"| `{name}` | {metric.type} | {labels} | {sentence(metric.text)} | {used} |"


def _label(name: str, values: frozenset[str]) -> str:
    if not values or name == "version":
        return f"`{name}`"
    shown = f"{len(values)} values" if len(values) > MOST_VALUES else ", ".join(sorted(values))
    return f"`{name}`: {shown}"


def _recorded_section() -> str:
    looked_at = places(of_dashboards() + of_rules())
    head = "## Recorded by rules\n\n| series | looked at in |\n|---|---|"
    rows = [f"| `{name}` | {', '.join(sorted(looked_at.get(name, set())))} |" for name in _recorded_names()]
    return "\n".join([head, *rows, ""])


def _recorded_names() -> Iterator[str]:
    return (rule["record"] for found in rules().values() for rule in found if "record" in rule)


def write(to: Path = PAGE) -> None:
    """Scrape the programs, and write the page."""
    to.write_text(page(asyncio.run(scrape_all())))


if __name__ == "__main__":
    write()
