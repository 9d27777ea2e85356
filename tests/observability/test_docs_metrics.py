"""docs/metrics.md is up to date, and every metric is used or has a reason not to be."""

from __future__ import annotations

from collections.abc import Iterator

from observability.asked import of_dashboards, of_rules, recorded
from observability.metrics_page import PAGE, UNUSED, page, places, seen_in
from observability.programs_metrics import Metric, Programs


def all_metrics(programs: Programs) -> Iterator[Metric]:
    return (metric for metrics in programs.values() for metric in metrics)


def test_the_page_is_up_to_date_with_the_programs(programs_metrics: Programs) -> None:
    assert PAGE.read_text() == page(programs_metrics), "run: make docs-metrics"


def test_every_metric_is_used_or_has_a_reason_not_to_be(programs_metrics: Programs) -> None:
    looked_at = places(of_dashboards() + of_rules())
    unseen = {metric.name for metric in all_metrics(programs_metrics) if not seen_in(metric, looked_at)}
    assert unseen == set(UNUSED)


def test_every_recorded_series_is_used() -> None:
    assert recorded() <= places(of_dashboards() + of_rules()).keys()


def test_every_metric_says_what_it_is(programs_metrics: Programs) -> None:
    for metric in all_metrics(programs_metrics):
        assert len(metric.text) > 10, metric.name
        assert metric.type in {"counter", "gauge", "histogram"}, metric.name
