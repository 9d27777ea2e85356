"""Fixtures of the tests of dashboards, rules and metrics."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from observability import prometheus_parts
from observability.programs_metrics import Programs, scrape_all


@pytest.fixture(scope="session")
def prometheus_programs() -> prometheus_parts.Programs:
    """Prometheus and promtool."""
    try:
        return prometheus_parts.programs()
    except prometheus_parts.NotToBeHadError as error:
        text = f"Prometheus is needed: {error}"
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def programs_metrics() -> Programs:
    """The metrics of each program at its start."""
    if sys.platform != "linux":
        pytest.skip("process_… metrics are told on Linux only")
    return asyncio.run(scrape_all())
