"""librdkafka's properties that Flagpost sets itself, in every program (docs/contract.md#settings).

In: a property's name. Out: what to do instead of setting it, or None if it may be set. Imports nothing, so that the
Publisher can use it without the extra `settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

OWNED_PROPERTIES: Final = {
    "bootstrap.servers": "set kafka.bootstrap_servers instead",
    "metadata.broker.list": "set kafka.bootstrap_servers instead",
    "group.id": "set kafka.group_id instead",
    "group.protocol": "set kafka.group_protocol instead",
    "session.timeout.ms": "set kafka.session_timeout_seconds instead",
    "group.*": "leave it out",
    "max.poll.interval.ms": "leave it out",
    "enable.auto.*": "leave it out: offsets are committed when their deliveries are settled",
    "auto.offset.reset": "leave it out: new groups start at the earliest offset",
    "partition.assignment.strategy": "set kafka.group_protocol instead",
    "isolation.level": "leave it out",
    "enable.idempotence": "leave it out",
    "acks": "leave it out: every write is acknowledged by all in-sync replicas",
    "request.required.acks": "leave it out: every write is acknowledged by all in-sync replicas",
    "partitioner": "leave it out: a visitor's partition must be the same from every client",
    "transactional.id": "leave it out",
}
"""Names (globs, the first that matches), and what to do instead."""


def instead_of(name: str, owned: Mapping[str, str] = OWNED_PROPERTIES) -> str | None:
    """What to do instead of setting the property `name`; None: it is not among `owned`."""
    return next((text for glob, text in owned.items() if fnmatchcase(name, glob)), None)
