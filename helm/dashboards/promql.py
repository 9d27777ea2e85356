"""The words that the dashboards' queries are made of.

In: metric names and matchers. Out: PromQL that heeds the dashboards' variables.
"""

from __future__ import annotations

PROCESS = 'namespace=~"$namespace",release=~"$release",pod=~"$pod"'
"""What is told by a process of a release."""
RELEASE = 'namespace=~"$namespace",release=~"$release"'
"""What is told of a release as a whole: recorded series."""


def series(name: str, *matchers: str, of: str = PROCESS) -> str:
    """The series of a metric that the variables choose, and the matchers."""
    return f"{name}{{{','.join((of, *matchers))}}}"


def rate(name: str, *matchers: str, of: str = PROCESS) -> str:
    """A counter's rate a second, over the time that a point of a graph stands for."""
    return f"rate({series(name, *matchers, of=of)}[$__rate_interval])"


def gained(name: str, *matchers: str, of: str = PROCESS) -> str:
    """By how much a counter grew in all of the time that is looked at.

    A process that began meanwhile has what it counted before its first scrape in it, and one that ended stays in it:
    no restart makes anything vanish.
    """
    counter = series(name, *matchers, of=of)
    known, begun = f"increase({counter}[$__range])", f"max_over_time({counter}[$__range])"
    return f"({known} and {counter} offset $__range or {begun} unless {counter} offset $__range)"


def of_limit(expression: str, setting: str, times: int = 1) -> str:
    """The share of what a setting allows, so many times, process by process."""
    limit = series("flagpost_limit", f'setting="{setting}"')
    of_each = expression if times == 1 else f"{expression} / {times}"
    return f"{of_each} / on (namespace, release, pod) group_left {limit}"


def total(expression: str, *by: str) -> str:
    """The sum, by labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def greatest(expression: str, *by: str) -> str:
    """The greatest, by labels."""
    return f"max by ({', '.join(by)}) ({expression})" if by else f"max({expression})"


def quantile(fraction: float, name: str, *by: str) -> str:
    """A quantile of a histogram, by labels."""
    buckets = total(rate(f"{name}_bucket"), "le", *by)
    return f"histogram_quantile({fraction:g}, {buckets})"


def ratio(part: str, whole: str) -> str:
    """One expression over another."""
    return f"{part} / {whole}"


def seen(expression: str) -> str:
    """Without the series that are 0: of many labels, those that there is something of."""
    return f"{expression} > 0"


def of_program(expression: str, build: str) -> str:
    """Of series that every program has, those of one that tells this build."""
    return f"{expression} and on (namespace, release, pod) {series(build)}"


def of_ours(expression: str) -> str:
    """Of series that every program has (process_…), those of a consumer or a gateway."""
    ours = f"{series('flagpost_build_info')} or {series('flagpost_gateway_build_info')}"
    return f"{expression} and on (namespace, release, pod) ({ours})"
