"""One message of Segment's tracking API, and what its members say.

In: a message as parsed from JSON and mended, the members that its batch shares merged into it. Out: ids, moments
and nested objects by Segment's names (https://segment.com/docs/connections/spec/common/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagpost_publisher.gateway.moments import moment_ms
from flagpost_schemas.edge_rules import MAX_EVENT_ID_CHARACTERS


class MessageError(ValueError):
    """A message that no Segment library sends: `field` names where, `problem` says what is wrong and wanted."""

    def __init__(self, field: str, problem: str) -> None:
        """Give no value: it may be personal."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a known kind."""

    kind: str
    """`track`, `identify`, `group`, `page`, `screen` or `alias`."""
    members: Mapping[str, Any]
    received_at: int
    """When the request came, epoch milliseconds."""

    def nested(self, name: str) -> Mapping[str, Any]:
        """The object called `name`; empty when there is none. Raises MessageError for anything else."""
        value = self.members.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise MessageError(name, "must be an object")
        return value

    def id(self, name: str) -> str | None:
        """The id called `name`."""
        return usable_id(self.members.get(name))

    def event_id(self) -> str | None:
        """`messageId`, so that a message sent again is a duplicate; None when it has none.

        One of more than 128 characters gives its SHA-256, the same each time.
        """
        message_id = self.id("messageId")
        if message_id is None or len(message_id) <= MAX_EVENT_ID_CHARACTERS:
            return message_id
        return hashlib.sha256(message_id.encode()).hexdigest()

    def occurred_at(self) -> int:
        """When it happened by our clock: receivedAt - (sentAt - timestamp), as Segment does it.

        Without a readable sentAt the timestamp is taken as it is, without a readable timestamp it is the receipt. A
        message that Segment forwards has both `originalTimestamp` and a `timestamp` that it has corrected already.
        """
        original = moment_ms(self.members.get("originalTimestamp"))
        timestamp = moment_ms(self.members.get("timestamp"))
        sent_at = moment_ms(self.members.get("sentAt"))
        if timestamp is not None and original is not None:
            return timestamp
        claimed = original if timestamp is None else timestamp
        if claimed is None:
            return self.received_at
        return claimed if sent_at is None else self.received_at - (sent_at - claimed)

    def account_id(self) -> str | None:
        """The account: what the message itself says goes before its context."""
        context = self.nested("context")
        return (
            self.id("groupId")
            or usable_id(inner(self.members, "traits").get("accountId"))
            or usable_id(context.get("groupId"))
            or usable_id(inner(context, "traits").get("accountId"))
        )


def usable_id(value: object) -> str | None:
    """An id as text: a text that is not empty, or a number as JSON writes it; None for everything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def inner(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object called `name` in `outer`; empty for everything else."""
    value = outer.get(name)
    return value if isinstance(value, dict) else {}


def text(outer: Mapping[str, Any], name: str) -> str | None:
    """The text called `name` in `outer`; None for everything else."""
    value = outer.get(name)
    return value if isinstance(value, str) else None
