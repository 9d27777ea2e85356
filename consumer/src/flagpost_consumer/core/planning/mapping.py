"""What an event says to Pendo: the contents of a track request and of a metadata record.

In: an event and the settings `decisions` and `mapping`. Out: the visitor, the event's name, the properties as the
event has them (`pendo_rules` repairs them later), the context, and metadata values by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from flagpost_consumer.core.planning.pendo_rules import Properties, free_name, is_sendable
from flagpost_consumer.core.planning.visitor_names import anonymous_name
from flagpost_consumer.core.policy import AnonymousPolicy, DecisionsSettings, MappingSettings
from flagpost_schemas import (
    AccountMetadata,
    Context,
    DecisionEvent,
    MetadataValue,
    Scalar,
    TrackEvent,
    VisitorMetadata,
    variation_as_sent,
)

DECISION_PROPERTIES = ("flag_key", "variation_key", "rule_key", "enabled")
"""A decision's own property names; they are never renamed."""


class Track(NamedTuple):
    """The contents of one track request."""

    visitor_id: str
    account_id: str | None
    event: str
    occurred_at: int
    properties: Properties
    context: Context | None


VISITOR = "visitor"
"""The target of a visitor's metadata; the other is `account`."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Values for the fields of one visitor or account."""

    target: str
    """`visitor` or `account`."""
    group: str
    """`custom` or `agent`."""
    target_id: str
    values: dict[str, MetadataValue]

    @property
    def key(self) -> tuple[str, str]:
        """Whose values they are: (target, id)."""
        return self.target, self.target_id


def visitor_of(event: TrackEvent, mapping: MappingSettings) -> str | None:
    """The visitorId of a TrackEvent, or None."""
    if event.visitor_id or mapping.anonymous is AnonymousPolicy.DROP or event.anonymous_id is None:
        return event.visitor_id
    if mapping.anonymous is AnonymousPolicy.AS_ANONYMOUS:
        return anonymous_name(event.anonymous_id)
    return event.anonymous_id


def own_properties(decisions: DecisionsSettings) -> tuple[str, ...]:
    """The names of a decision's own properties; an attribute of such a name gets a number."""
    return (*DECISION_PROPERTIES, "rule_type") if decisions.rule_type_property else DECISION_PROPERTIES


def decision_properties(decision: DecisionEvent, decisions: DecisionsSettings) -> Properties:
    """The properties of a decision's track event, in the order of docs/contract.md#requests-to-pendo."""
    variation = variation_as_sent(decision)
    properties: Properties = {"flag_key": decision.flag_key}
    if variation is not None:
        properties["variation_key"] = variation
    if decision.rule_key is not None:
        properties["rule_key"] = decision.rule_key
    properties["enabled"] = decision.enabled
    if decisions.rule_type_property and decision.rule_type is not None:
        properties["rule_type"] = decision.rule_type
    own = own_properties(decisions)
    for name in decisions.attribute_properties:
        if name in decision.attributes:
            listed = decisions.attribute_properties
            sent_as = free_name(name, dict.fromkeys(listed, 1)) if name in own else name
            properties[sent_as] = decision.attributes[name]
    return properties


def decision_metadata(decision: DecisionEvent, decisions: DecisionsSettings) -> dict[str, MetadataValue]:
    """The metadata value of a decision under its configured field; empty when there is no variation."""
    variation = variation_as_sent(decision)
    if variation is None or not decisions.visitor_metadata:
        return {}
    flag = decision.flag_key
    field = decisions.metadata_fields.get(flag)
    if field is None:
        field = decisions.metadata_field.replace("{flag_key}", flag)
    return {field: variation}


def track_properties(event: TrackEvent, name: str, mapping: MappingSettings) -> Properties:
    """The properties of a TrackEvent that is sent as `name`: first those of its kind, then its own."""
    properties = _leading_properties(event, name)
    for field, value in event.properties.items():
        properties.setdefault(field, value)
    for identity in mapping.identity_properties:
        properties.setdefault(identity, _identity(event, identity))
    return properties


def _leading_properties(event: TrackEvent, name: str) -> Properties:
    if name == "page_view":
        return _page_properties(event)
    if name == "purchase":
        return _purchase_properties(event.properties)
    return {}


def _page_properties(event: TrackEvent) -> Properties:
    given = event.properties
    context = event.context or Context()
    return {
        "url": _first(given.get("url"), context.url),
        "title": _first(given.get("title"), context.title),
        "referrer": given.get("referrer"),
    }


def _purchase_properties(given: Mapping[str, Scalar]) -> Properties:
    return {
        "revenue": _first(given.get("revenue"), given.get("total")),
        "order_id": given.get("order_id"),
        "items": _first(given.get("items"), given.get("products_count")),
    }


def _first(preferred: Scalar, other: Scalar) -> Scalar:
    return other if preferred is None else preferred


def _identity(event: TrackEvent, name: str) -> Scalar:
    if name == "anonymous_id":
        return event.anonymous_id
    return event.context.locale if event.context else None


def metadata_values(event: VisitorMetadata | AccountMetadata) -> dict[str, MetadataValue]:
    """The values of a metadata event that JSON can carry. A null is sent: it clears the field."""
    return {
        field: list(value) if isinstance(value, (list, tuple)) else value
        for field, value in event.values.items()
        if value is None or isinstance(value, (list, tuple)) or is_sendable(value)
    }


def track_body(track: Track) -> bytes:
    """The body of a track request, byte for byte as in docs/contract.md#requests-to-pendo."""
    body: dict[str, object] = {"type": "track", "event": track.event, "visitorId": track.visitor_id}
    if track.account_id:
        body["accountId"] = track.account_id
    body["timestamp"] = track.occurred_at
    body["properties"] = track.properties
    body["context"] = _context(track.context)
    return orjson.dumps(body)


def _context(context: Context | None) -> dict[str, str]:
    if context is None:
        return {}
    members = {
        "ip": context.ip,
        "userAgent": context.user_agent,
        "url": context.url,
        "title": context.title,
    }
    return {name: value for name, value in members.items() if value is not None}


def metadata_body(target: str, records: list[tuple[str, dict[str, MetadataValue]]]) -> bytes:
    """The body of a metadata request: an array with one record for each id."""
    member = f"{target}Id"
    return orjson.dumps([{member: target_id, "values": values} for target_id, values in records])
