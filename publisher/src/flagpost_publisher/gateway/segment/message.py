"""One message of Segment's tracking API, and its members.

In: a parsed and repaired message, and what its batch shares, read once for all messages. Out: ids and nested objects
by Segment's names (https://segment.com/docs/connections/spec/common/).
"""

from __future__ import annotations

import hashlib
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flagpost_schemas.edge_rules import MAX_EVENT_ID_CHARACTERS


class MessageError(ValueError):
    """A message that cannot be understood; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a batch contains for all its messages. It is never copied for one of them: a batch may have thousands."""

    context: dict[str, Any] = field(default_factory=dict)
    integrations: dict[str, Any] = field(default_factory=dict)
    sent_at: object = None
    consent: dict[str, bool] | None = None
    """The consent in the context."""

    @property
    def size_bytes(self) -> int:
        """The approximate bytes that it adds to each event in Kafka."""
        objects = (self.context, *(inner(self.context, name) for name in ("page", "library", "traits")))
        texts = [value for each in objects for value in each.values() if isinstance(value, str)]
        return sum(1 + len(each) for each in (*texts, *(self.consent or {})))


NOTHING_SHARED: Final = Shared()


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a known kind."""

    kind: str
    """`track`, `identify`, `group`, `page`, `screen` or `alias`."""
    members: Mapping[str, Any]
    """The message's own members."""
    occurred_at: int
    """When it happened, epoch milliseconds (see `times`)."""
    shared: Shared = NOTHING_SHARED

    def nested(self, name: str) -> dict[str, Any]:
        """The message's own object called `name`; empty if there is none. Raises MessageError for anything else."""
        value = self.members.get(name)
        found = as_object(value)
        if found is None:
            raise MessageError(f"{name}: must be an object")
        return found

    def context(self) -> Mapping[str, Any]:
        """The message's own members, and those of its batch. Raises MessageError."""
        return _over(self.nested("context"), self.shared.context)

    def integrations(self) -> Mapping[str, Any]:
        """The message's own members, and those of its batch. Raises MessageError."""
        return _over(self.nested("integrations"), self.shared.integrations)

    def consent(self) -> dict[str, bool] | None:
        """The message's own consent by category; None: it has none. Raises MessageError."""
        return granted(self.nested("context"))

    @property
    def leaves_consent_to_its_batch(self) -> bool:
        """Whether the batch's consent applies to this message. Raises MessageError."""
        return self.shared.consent is not None and "consent" not in self.nested("context")

    def id(self, name: str) -> str | None:
        """The id called `name`."""
        return usable_id(self.members.get(name))

    def event_id(self) -> str | None:
        """`messageId`, so that a message sent again is a duplicate; None without one.

        An id of more than 128 characters is replaced by its SHA-256, so it stays the same.
        """
        message_id = self.id("messageId")
        if message_id is None or len(message_id) <= MAX_EVENT_ID_CHARACTERS:
            return message_id
        return hashlib.sha256(message_id.encode()).hexdigest()

    def account_id(self) -> str | None:
        """The account: the message's own takes precedence over its context's."""
        context = self.context()
        return (
            self.id("groupId")
            or usable_id(inner(self.members, "traits").get("accountId"))
            or usable_id(context.get("groupId"))
            or usable_id(inner(context, "traits").get("accountId"))
        )


def as_object(value: object) -> dict[str, Any] | None:
    """A member that should be an object; PHP writes an empty one as `[]`. None: it is something else."""
    if value is None or value == []:
        return {}
    return value if isinstance(value, dict) else None


def granted(context: Mapping[str, Any]) -> dict[str, bool] | None:
    """The consent in a context. Only `true` grants (https://segment.com/docs/privacy/consent-management/)."""
    preferences = inner(context, "consent").get("categoryPreferences")
    if not isinstance(preferences, dict):
        return None
    return {category: allowed is True for category, allowed in preferences.items()}


def _over(own: dict[str, Any], shared: dict[str, Any]) -> Mapping[str, Any]:
    """One object with the other as its default, without a copy of either."""
    return ChainMap(own, shared) if own and shared else own or shared


def usable_id(value: object) -> str | None:
    """An id as text: a text that is not empty, or a number as JSON writes it; None for anything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def inner(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object called `name` in `outer`; empty for anything else."""
    value = outer.get(name)
    return value if isinstance(value, dict) else {}


def text(outer: Mapping[str, Any], name: str) -> str | None:
    """The text called `name` in `outer`; None for anything else."""
    value = outer.get(name)
    return value if isinstance(value, str) else None
