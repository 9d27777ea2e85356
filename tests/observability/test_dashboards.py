"""The dashboards: made by their source, sound, and asking only for what there is."""

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
    ROOT,
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
from observability.promql import concrete, selectors

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
"""Of Grafana's, those that we use (packages/grafana-data/src/valueFormats/categories.ts)."""
ENDINGS = {"A", "B", "C", "D", "E", "F", "G", "H"}

ALL = pytest.mark.parametrize("dashboard", dashboards().values(), ids=dashboards().keys())
Dashboard = Mapping[str, Any]


def test_the_files_are_what_their_source_makes() -> None:
    files = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert files == texts(), "run: make dashboards"


def test_all_dashboards_are_there() -> None:
    assert sorted(dashboard["title"] for dashboard in dashboards().values()) == [
        f"Flagpost / {t}" for t in TITLES
    ]
    assert len({dashboard["uid"] for dashboard in dashboards().values()}) == len(TITLES)


@ALL
def test_a_dashboard_has_what_all_have(dashboard: Dashboard) -> None:
    assert dashboard["schemaVersion"] >= 39
    assert re.fullmatch("flagpost-[a-z]+", dashboard["uid"])
    assert len(dashboard["description"]) > 30
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "release", "pod"]
    assert variables["datasource"]["query"] == "prometheus"
    assert {each["name"] for each in dashboard["annotations"]["list"]} == {"Deployments", "Rebalances"}
    others, runbooks = dashboard["links"]
    assert others["type"] == "dashboards"
    assert others["tags"] == dashboard["tags"] == ["flagpost"]
    assert others["keepTime"]
    assert others["includeVars"]
    assert (ROOT / runbooks["url"]).is_file()


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
        for link in panel["links"]:
            assert (ROOT / link["url"]).is_file(), f"{title}: {link['url']}"


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
def test_panels_do_not_overlap_and_titles_are_told_apart(dashboard: Dashboard) -> None:
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
def test_the_variables_choose_in_every_selector(asked: Asked) -> None:
    for selector in selectors(asked.expr):
        if selector.metric != "ALERTS" and not selector.metric.startswith("flagpost_publisher_"):
            wanted = {"namespace", "release"} if ":" in selector.metric else {"namespace", "release", "pod"}
            assert wanted <= {matcher.label for matcher in selector.matchers}, selector.metric


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
def test_a_query_for_what_does_not_exist_is_found(
    programs_metrics: Programs, expr: str, problem: str
) -> None:
    assert problem in problems(expr, by_series(programs_metrics), recorded())
