"""The dashboards are those that their source generates, are well formed, and query only series that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.files import texts
from observability.asked import (
    DASHBOARDS,
    RUNBOOKS,
    Asked,
    dashboards,
    everything,
    of_dashboards,
    panels,
    recorded,
)
from observability.metric_checks import problems
from observability.programs_metrics import Programs, by_series
from observability.prometheus_parts import Programs as PrometheusPrograms
from observability.promql import Selector, concrete, selectors

TITLES = [
    "Delivery",
    "Experiments",
    "Kafka",
    "Overview",
    "Publishers and gateway",
    "Resources",
    "Visitors and dedupe",
]
UNITS = {"none", "short", "s", "percentunit", "ops", "reqps", "cps", "bytes"}
"""The units of Grafana that we use (packages/grafana-data/src/valueFormats/categories.ts)."""
ENDINGS = {"A", "B", "C", "D", "E", "F", "G", "H"}

ALL = pytest.mark.parametrize("dashboard", dashboards().values(), ids=dashboards().keys())
Dashboard = Mapping[str, Any]


def test_the_files_are_what_their_source_generates() -> None:
    files = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert files == texts(), "run: make dashboards"


def test_all_dashboards_are_there() -> None:
    assert sorted(dashboard["title"] for dashboard in dashboards().values()) == [
        f"Flagpost / {t}" for t in TITLES
    ]
    assert len({dashboard["uid"] for dashboard in dashboards().values()}) == len(TITLES)


@ALL
def test_a_dashboard_has_the_parts_that_all_have(dashboard: Dashboard) -> None:
    assert dashboard["schemaVersion"] >= 39
    assert re.fullmatch("flagpost-[a-z]+", dashboard["uid"])
    assert len(dashboard["description"]) > 30
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "release", "pod"]
    assert variables["datasource"]["query"] == "prometheus"
    assert {each["name"] for each in dashboard["annotations"]["list"]} == {"Deployments", "Rebalances"}
    (others,) = dashboard["links"]
    assert others["type"] == "dashboards"
    assert others["tags"] == dashboard["tags"] == ["flagpost"]
    assert others["keepTime"]
    assert others["includeVars"]


@ALL
def test_every_panel_says_what_it_means(dashboard: Dashboard) -> None:
    for panel in panels(dict(dashboard)):
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 20, title
        assert panel["description"].endswith("."), title
        assert defaults["unit"] in UNITS, title
        steps = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert steps[0] is None, title
        assert steps[1:] == sorted(steps[1:]), title
        assert panel["targets"], title
        for runbook in re.findall(r"Runbook: (\w+)\.", panel["description"]):
            assert (RUNBOOKS / f"{runbook}.md").is_file(), f"{title}: {runbook}"


@ALL
def test_every_query_asks_the_chosen_prometheus_and_names_its_series(dashboard: Dashboard) -> None:
    for panel in panels(dict(dashboard)):
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets)
        assert {target["refId"] for target in targets} <= ENDINGS
        for target in targets:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"] or panel["type"] in {"stat", "table"}, panel["title"]


@ALL
def test_panels_do_not_overlap_and_titles_differ(dashboard: Dashboard) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    assert len({title for title, _ in places}) == len(places)
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for _, at in places)
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one} lies on {other}"


@pytest.mark.parametrize("asked", of_dashboards(), ids=lambda asked: f"{asked.place}/{asked.what}")
def test_every_selector_uses_the_variables(asked: Asked) -> None:
    for selector in selectors(asked.expr):
        chosen = {matcher.label for matcher in selector.matchers if matcher.value == ".*"}
        if selector.metric.startswith("flagpost_publisher_"):
            assert "namespace" in chosen, "services are of no release"
        elif _is_of_a_release(asked, selector):
            assert {"namespace", "release"} <= chosen, selector.metric
        else:
            assert {"namespace", "release", "pod"} <= chosen, selector.metric


def _is_of_a_release(asked: Asked, selector: Selector) -> bool:
    """Whether the choice of pods does not apply: to alerts, to series that rules record, and to two panels."""
    is_recorded = ":" in selector.metric or selector.metric == "ALERTS"
    return is_recorded or asked.what in ("Partitions without a consumer", "Deadline")


@pytest.mark.parametrize("asked", of_dashboards(), ids=lambda asked: f"{asked.place}/{asked.what}")
def test_queries_use_the_increase_of_a_counter(asked: Asked) -> None:
    """A counter begins at 0 with its process: with its plain value, a restart would turn a panel green."""
    counters = re.findall(r"\bflagpost_\w+_total\b", asked.expr)
    within = re.findall(r"(?:rate|increase|max_over_time)\(flagpost_\w+_total\{[^}]*\}\[", asked.expr)
    known = re.findall(r"(?:and|unless) flagpost_\w+_total\{[^}]*\} offset", asked.expr)
    assert len(counters) == len(within) + len(known)


@ALL
def test_no_threshold_is_the_default_of_a_setting(dashboard: Dashboard) -> None:
    """A panel with a built-in default is wrong wherever the setting was changed."""
    defaults = {str(value) for value in (20_000, 67_108_864, 600_000, 2_000_000, 427_200, 128, 96, 64)}
    for panel in panels(dict(dashboard)):
        steps = {f"{step['value']:g}" for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]}
        assert not steps & defaults, panel["title"]


def test_every_query_is_promql(prometheus_programs: PrometheusPrograms, tmp_path: Path) -> None:
    queries = everything()
    assert len(queries) > 100
    rules = [
        {"record": f"query:{number}", "expr": concrete(asked.expr)} for number, asked in enumerate(queries)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [prometheus_programs.promtool, "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_metric_that_is_named_exists(programs_metrics: Programs) -> None:
    metrics = by_series(programs_metrics)
    wrong = [
        f"{asked.place}, {asked.what}: {problem}"
        for asked in everything()
        for problem in problems(asked.expr, metrics, recorded())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        (
            'rate(flagpost_deliverys_total{release=~"$release"}[5m])',
            "no program has flagpost_deliverys_total",
        ),
        ("sum by (reason) (flagpost_deliveries)", "no program has flagpost_deliveries"),
        ('flagpost_deliveries_total{outcome="lost"}', "flagpost_deliveries_total never has outcome='lost'"),
        ('flagpost_deliveries_total{status="200"}', "flagpost_deliveries_total has no label status"),
        ("sum by (flag) (flagpost_deliveries_total)", "nothing here has a label flag"),
        ("1 - release:flagpost_late:ratio", "no program has release:flagpost_late:ratio"),
        ("absent(upp) or vector(0)", "no program has upp"),
    ],
)
def test_a_query_for_a_missing_metric_label_or_value_is_found(
    programs_metrics: Programs, expr: str, problem: str
) -> None:
    assert problem in problems(expr, by_series(programs_metrics), recorded())
