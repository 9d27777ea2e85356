"""Whether publishers put events on the right partition for their visitor, and which services do not.

In: a sample of the newest events. Out: a check. The consumer counts by the same rule (flagpost_mispartitioned_total):
the key is the id, and the partition is the one that murmur2 gives for it.
"""

from __future__ import annotations

from collections import Counter

from flagpost_consumer.commands.check.results import Check, ok, warn
from flagpost_consumer.commands.sources.newest_events import PlacedEvent, Sample
from flagpost_consumer.core.planning.legible import legible
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import partition_key

NAME = "partitioning"
MAX_SERVICES = 10
MAX_SERVICE_CHARACTERS = 60


def judge_partitioning(sample: Sample) -> list[Check]:
    """Judge the sample; no finding if nothing could be read: other checks say why."""
    if sample.unread:
        return []
    wrong = [placed for placed in sample.placed if not _is_in_place(placed, sample.partitions)]
    if not wrong:
        return [ok(NAME, f"the newest {len(sample.placed):,} events are on the partitions of their keys")]
    return [
        warn(
            NAME,
            f"{len(wrong):,} of the newest {len(sample.placed):,} events have a key that is not their visitor's id, "
            f"or are on a partition that is not their key's; by service: {_by_service(wrong)}",
            "set partitioner=murmur2_random in these producers, and the visitor's id as the key: docs/publishing.md. "
            "After partitions were added, older events are still on their old partitions: docs/topics.md",
        )
    ]


def _is_in_place(placed: PlacedEvent, partitions: int) -> bool:
    key = partition_key(placed.event)
    if key is None:  # an event without a key has no visitor and no order
        return True
    return placed.key == key and partition_of(key, partitions) == placed.partition


def _by_service(wrong: list[PlacedEvent]) -> str:
    services = Counter(_service(placed) for placed in wrong)
    told = [f"{service} {count:,}" for service, count in services.most_common(MAX_SERVICES)]
    more = len(services) - MAX_SERVICES
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def _service(placed: PlacedEvent) -> str:
    source = placed.event.source
    name = None if source is None else source.service
    return legible(name, MAX_SERVICE_CHARACTERS) if name else "(no source.service)"
