"""`flagpost check` names the services whose events are not on the partitions of their keys."""

from __future__ import annotations

from typing import Any

import pytest

from flagpost_consumer.commands.check.partitioning import MAX_SERVICES, judge_partitioning
from flagpost_consumer.commands.check.results import Status
from flagpost_consumer.commands.sources.newest_events import PlacedEvent, Sample
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import AccountMetadata, Event, Source, TrackEvent

PARTITIONS = 4


def seen(visitor: str | None, service: str | None = "checkout", **more: Any) -> TrackEvent:
    source = None if service is None else Source(service=service)
    return TrackEvent(event_id="e", occurred_at=5, visitor_id=visitor, event="Seen", source=source, **more)


def placed(event: Event, key: bytes | None, off: int = 0) -> PlacedEvent:
    home = 0 if key is None else partition_of(key, PARTITIONS)
    return PlacedEvent(event, key, (home + off) % PARTITIONS)


def judged(*events: PlacedEvent) -> tuple[Status, str]:
    (check,) = judge_partitioning(Sample(events, PARTITIONS))
    assert bool(check.fix) is (check.status is Status.WARN)
    return check.status, check.detail


def test_events_on_the_partitions_of_their_keys_are_ok() -> None:
    account = AccountMetadata(event_id="e", occurred_at=5, account_id="acme", values={"tier": 2})
    anonymous, nobody = seen(None, anonymous_id="a"), seen(None)
    events = [
        placed(seen("v"), b"v"),
        placed(account, b"acme"),
        placed(anonymous, b"a"),
        placed(nobody, None, 2),
    ]
    assert judged(*events) == (Status.OK, "the newest 4 events are on the partitions of their keys")


def test_services_with_events_on_other_partitions_are_named() -> None:
    wrong = [placed(seen("v"), b"v", 1), placed(seen("w"), b"w", 2), placed(seen("v", "search"), b"another")]
    status, detail = judged(*wrong, placed(seen("v", None), b"v", 1), placed(seen("v"), b"v"))
    assert status is Status.WARN
    assert detail.startswith("4 of the newest 5 events")
    assert detail.endswith("by service: checkout 2, search 1, (no source.service) 1")


def test_many_services_are_counted() -> None:
    _, detail = judged(*(placed(seen("v", f"s{n}"), b"v", 1) for n in range(MAX_SERVICES + 3)))
    assert detail.endswith(", and 3 more")


@pytest.mark.parametrize("unread", ["Kafka does not answer"])
def test_a_sample_that_could_not_be_read_is_not_judged(unread: str) -> None:
    assert judge_partitioning(Sample(unread=unread)) == []
