"""Checks that a query can return data: its metrics exist, and their labels have such values.

In: a query, the programs' metrics and the series that rules record. Out: what is wrong with the query, as sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from observability.programs_metrics import Metric
from observability.promql import Selector, grouping_labels, selectors

OF_THE_TARGET = {"namespace", "release", "pod", "job", "instance"}
"""Labels that come from the scrape (helm/flagpost/alerts/README.md)."""
OF_OTHERS: Mapping[str, frozenset[str]] = {
    "kube_job_status_start_time": frozenset({"job_name"}),
    "kube_job_failed": frozenset({"job_name", "condition"}),
    "kube_job_owner": frozenset({"job_name", "owner_kind", "owner_name"}),
    "kube_cronjob_status_last_successful_time": frozenset({"cronjob"}),
    "kube_cronjob_next_schedule_time": frozenset({"cronjob"}),
}
"""Metrics of kube-state-metrics (its docs/metrics/workload), with the labels that our queries use."""
OF_PROMETHEUS = {"ALERTS"}
"""Series that Prometheus itself writes when rules are evaluated."""


def problems(expr: str, metrics: Mapping[str, Metric], recorded: set[str]) -> list[str]:
    """What is wrong with a query; empty if nothing is."""
    found = [problem for selector in selectors(expr) for problem in _in_selector(selector, metrics, recorded)]
    return found + _in_grouping(expr, metrics, recorded)


def _in_selector(selector: Selector, metrics: Mapping[str, Metric], recorded: set[str]) -> Iterator[str]:
    if selector.metric in OF_PROMETHEUS | recorded:
        return
    if selector.metric in OF_OTHERS:
        yield from (
            f"{selector.metric} has no label {matcher.label}"
            for matcher in selector.matchers
            if matcher.label not in OF_OTHERS[selector.metric] | OF_THE_TARGET
        )
        return
    metric = metrics.get(selector.metric)
    if metric is None:
        yield f"no program has {selector.metric}"
        return
    for matcher in selector.matchers:
        if matcher.label in OF_THE_TARGET:
            continue
        if matcher.label not in metric.labels:
            yield f"{selector.metric} has no label {matcher.label}"
        elif (values := metric.labels[matcher.label]) and not any(map(matcher.admits, values)):
            yield f"{selector.metric} never has {matcher.label}{matcher.operator}{matcher.value!r}"


def _in_grouping(expr: str, metrics: Mapping[str, Metric], recorded: set[str]) -> list[str]:
    named = {selector.metric for selector in selectors(expr)}
    if named & (OF_PROMETHEUS | OF_OTHERS.keys() | recorded):
        return []
    known = OF_THE_TARGET.union(*(metrics[name].labels for name in named if name in metrics))
    return [f"nothing here has a label {label}" for label in grouping_labels(expr) if label not in known]
