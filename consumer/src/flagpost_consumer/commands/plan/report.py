"""A forecast for people and for programs.

In: a forecast, and where its costs come from. Out: lines of text, charts, one JSON document.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import Any

from flagpost_consumer import __version__
from flagpost_consumer.commands.plan.calibration import this_machine
from flagpost_consumer.commands.plan.charts import Chart, terminal_chart
from flagpost_consumer.commands.plan.costs import SHIPPED, Calibration
from flagpost_consumer.commands.plan.forecast import MIB, Forecast, PodForecast
from flagpost_consumer.terminal.numbers import count_of


def charts(forecast: Forecast) -> tuple[Chart, Chart]:
    """The backlog, and the age of events at Pendo."""
    points = forecast.busiest.points
    seconds = [point.at for point in points]
    return (
        Chart("Lag of the busiest pod, records", seconds, [point.lag for point in points]),
        Chart("Event age in the busiest pod, p99, seconds", seconds, [point.age_seconds for point in points]),
    )


def provenance(calibration: Calibration) -> str:
    """Where the costs come from, and whether they apply here."""
    if calibration is SHIPPED:
        return (
            "CPU and memory are estimates from measurements on another machine; to measure on this one, run "
            "flagpost plan --calibrate"
        )
    measured = (
        f"measured {calibration.measured_at} with version {calibration.version} on {calibration.machine}"
    )
    if (calibration.version, calibration.machine) == (__version__, this_machine()):
        return f"CPU and memory: {measured}"
    return f"CPU and memory: {measured}; this is version {__version__} on {this_machine()}: measure again"


def text(forecast: Forecast, calibration: Calibration) -> str:
    """The whole forecast for a terminal."""
    parts = [
        "\n".join(_lines(forecast)),
        *(terminal_chart(chart) for chart in charts(forecast)),
        provenance(calibration),
        "\n".join(_verdict(forecast)),
    ]
    return "\n\n".join(parts)


def _lines(forecast: Forecast) -> Iterator[str]:
    for name, value in _rows(forecast):
        yield f"{name:<24} {value}"


def _rows(forecast: Forecast) -> Iterator[tuple[str, str]]:
    load = forecast.wanted.load
    backlog = f", {load.backlog:,} waiting" if load.backlog else ""
    yield "load", f"{load.decisions_per_second:,.0f} decisions/s{backlog}, {load.visitors:,} visitors"
    needed = "more than there are partitions" if forecast.pods_needed is None else f"{forecast.pods_needed:,}"
    yield "pods", f"{forecast.pods:,} for {count_of(load.partitions, 'partition')}; needed: {needed}"
    yield (
        "requests to Pendo",
        (
            f"track {forecast.of_group(lambda pod: pod.delivered_per_second):,.1f}/s, "
            f"metadata {forecast.of_group(lambda pod: pod.metadata_requests_per_second):,.2f}/s"
        ),
    )
    yield "duplicates removed", f"{forecast.of_group(lambda pod: pod.duplicates_per_second):,.1f}/s"
    yield (
        "Pendo budget needed",
        (f"track {forecast.track_budget:,.0f} a minute, metadata {forecast.metadata_budget:,.0f} a minute"),
    )
    yield "memory per pod", f"{forecast.memory_bytes / MIB:,.0f} MiB"
    yield from _rows_of_pod("the busiest pod", forecast.busiest)
    if forecast.usual is not forecast.busiest:
        yield from _rows_of_pod("each other pod", forecast.usual)


def _rows_of_pod(name: str, pod: PodForecast) -> Iterator[tuple[str, str]]:
    sample, ages = pod.sample, pod.ages
    yield (
        name,
        (
            f"simulated for {sample.seconds:,.0f} s: {len(sample.partitions)} of its "
            f"{count_of(sample.of_pod, 'partition')}, "
            f"{sample.fraction:.1%} of its {pod.decisions_per_second:,.0f} decisions/s"
        ),
    )
    yield "  CPU", f"{pod.cpu_cores:.3f} cores"
    yield "  lag at the end", f"{pod.points[-1].lag:,.0f} records"
    yield "  event age", f"p50 {_seconds(ages.p50)}, p99 {_seconds(ages.p99)}, at most {_seconds(ages.most)}"


def _verdict(forecast: Forecast) -> Iterator[str]:
    problems = forecast.problems
    yield (
        "These pods and settings cannot carry the load:"
        if problems
        else "These pods and settings carry the load."
    )
    yield from (f"- {problem}" for problem in problems)


def _seconds(value: float) -> str:
    return "-" if isnan(value) else f"{value:,.3f} s"


def as_json(forecast: Forecast, calibration: Calibration) -> dict[str, Any]:
    """The same for a program; unknown values are null."""
    load = forecast.wanted.load
    problems = forecast.problems
    return {
        "holds": not problems,
        "problems": problems,
        "load": {
            "decisions_per_second": load.decisions_per_second,
            "backlog": load.backlog,
            "visitors": load.visitors,
            "skew": load.skew,
            "flags": load.flags,
            "partitions": load.partitions,
        },
        "pods": {"planned": forecast.pods, "needed": forecast.pods_needed},
        "requests_per_second": {
            "track": forecast.of_group(lambda pod: pod.delivered_per_second),
            "metadata": forecast.of_group(lambda pod: pod.metadata_requests_per_second),
        },
        "duplicates_per_second": forecast.of_group(lambda pod: pod.duplicates_per_second),
        "budget_needed_per_minute": {"track": forecast.track_budget, "metadata": forecast.metadata_budget},
        "memory_bytes": forecast.memory_bytes,
        "busiest_pod": _pod_as_json(forecast.busiest),
        "usual_pod": _pod_as_json(forecast.usual),
        "calibration": {
            "shipped": calibration is SHIPPED,
            "machine": calibration.machine,
            "version": calibration.version,
            "measured_at": calibration.measured_at,
        },
    }


def _pod_as_json(pod: PodForecast) -> dict[str, Any]:
    sample, ages = pod.sample, pod.ages
    return {
        "decisions_per_second": pod.decisions_per_second,
        "sample": {
            "partitions": list(sample.partitions),
            "of_pod": sample.of_pod,
            "fraction": sample.fraction,
            "seconds": sample.seconds,
        },
        "cpu_cores": pod.cpu_cores,
        "most_pending": pod.most_pending,
        "lag": pod.points[-1].lag,
        "event_age_seconds": {
            "p50": _or_null(ages.p50),
            "p99": _or_null(ages.p99),
            "max": _or_null(ages.most),
        },
        "series": [
            {"at": point.at, "lag": point.lag, "event_age_p99_seconds": _or_null(point.age_seconds)}
            for point in pod.points
        ],
    }


def _or_null(value: float) -> float | None:
    return None if isnan(value) else value
