"""A Publisher's numbers as Prometheus sees them."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry

from deadlines import stretched
from flagpost_publisher import Publisher
from flagpost_publisher.metrics import PublisherCollector
from flagpost_schemas import TrackEvent


def test_a_scrape_shows_the_current_stats() -> None:
    registry = CollectorRegistry()
    too_long = TrackEvent(event_id="x" * 129, occurred_at=1, visitor_id="v", event="Clicked")
    with Publisher(bootstrap_servers="127.0.0.1:1") as publisher:
        registry.register(PublisherCollector(publisher))
        assert registry.get_sample_value("flagpost_publisher_accepted_total") == 0
        assert publisher.track("v1", "Clicked")
        assert publisher.track("v2", "Clicked")
        assert not publisher.publish(too_long)
        shown = {
            name: registry.get_sample_value(f"flagpost_publisher_{name}")
            for name in ("accepted_total", "delivered_total", "failed_total", "refused_total", "queued")
        }
        publisher.close(0)
    assert shown == {
        "accepted_total": 2, "delivered_total": 0, "failed_total": 0, "refused_total": 1, "queued": 2
    }  # fmt: skip
    assert registry.get_sample_value("flagpost_publisher_failed_total") == 2
    assert registry.get_sample_value("flagpost_publisher_duplicates_total") == 0


def test_without_the_extra_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import flagpost_publisher.metrics"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=stretched(60), check=False
    )
    assert "pip install 'flagpost-publisher[metrics]'" in done.stderr.splitlines()[-1]
