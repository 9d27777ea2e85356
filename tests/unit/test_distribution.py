"""A distribution has the same samples as prometheus_client's own histogram of the same seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import HistogramMetricFamily

from flagpost_consumer.adapters.metrics import AGE_SECONDS, Distribution

SECONDS = st.floats(0, 1e7) | st.sampled_from(AGE_SECONDS)


@given(st.lists(SECONDS, max_size=30))
def test_it_returns_what_prometheus_returns(observed: list[float]) -> None:
    theirs = Histogram("age_seconds", "Age.", ["of"], buckets=AGE_SECONDS, registry=CollectorRegistry())
    ours, family = Distribution(AGE_SECONDS), HistogramMetricFamily("age_seconds", "Age.", labels=["of"])
    for seconds in observed:
        theirs.labels("a").observe(seconds)
        ours.observe(seconds)
    theirs.labels("a")
    ours.add_to(family, "a")
    wanted = {
        (each.name, *each.labels.items()): each.value
        for metric in theirs.collect()
        for each in metric.samples
        if not each.name.endswith("_created")
    }
    assert {(each.name, *each.labels.items()): each.value for each in family.samples} == wanted
