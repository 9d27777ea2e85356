"""The events that services publish, as typed classes: one for each Avro record, with its fields as attributes.

In: keyword arguments. Out: frozen values; nothing is checked here (`encode` checks). Times are epoch milliseconds.
Strings named `*_id` may be personal: keep them out of logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str | None
"""An attribute's or property's value; an int fits in 64 bits."""

MetadataValue: TypeAlias = Scalar | list[str]
"""A metadata field's value; Pendo also has lists of strings."""


class MetadataGroup(StrEnum):
    """Pendo's group of metadata fields, part of the metadata API's path."""

    CUSTOM = "custom"
    AGENT = "agent"


class RuleType(StrEnum):
    """The type of the rule that decided."""

    EXPERIMENT = "experiment"
    DELIVERY = "delivery"
    """A rollout, or a targeted delivery."""
    HOLDOUT = "holdout"
    NONE = "none"
    """No rule: the flag has none for the visitor, or the application forced the flag's variation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The visitor's browser and page when it happened; each member may be unknown."""

    ip: str | None = None
    user_agent: str | None = None
    url: str | None = None
    title: str | None = None
    locale: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The service that published the event; each member may be unknown."""

    service: str | None = None
    environment: str | None = None
    sdk: str | None = None
    sdk_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEvent:
    """One flag decision of Optimizely Feature Experimentation, from the SDK's DECISION notification.

    `variation_key` is the SDK's, also when the flag is off (see `variation_as_sent`). `decision_event_dispatched`:
    whether an impression was sent to Optimizely; if the datafile has sendFlagDecisions, this is so for every rule.
    `rule_type`: the `RuleType` of the rule that decided; None: unknown.
    """

    event_id: str
    occurred_at: int
    account_id: str | None = None
    context: Context | None = None
    consent: dict[str, bool] | None = None
    source: Source | None = None
    visitor_id: str
    flag_key: str
    enabled: bool
    variation_key: str | None = None
    rule_key: str | None = None
    decision_event_dispatched: bool
    rule_type: str | None = None
    experiment_id: str | None = None
    variation_id: str | None = None
    attributes: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackEvent:
    """Something a visitor did; without `visitor_id` it is known by `anonymous_id` only."""

    event_id: str
    occurred_at: int
    account_id: str | None = None
    context: Context | None = None
    consent: dict[str, bool] | None = None
    source: Source | None = None
    visitor_id: str | None = None
    anonymous_id: str | None = None
    event: str
    properties: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorMetadata:
    """Values of a visitor's metadata fields."""

    event_id: str
    occurred_at: int
    account_id: str | None = None
    context: Context | None = None
    consent: dict[str, bool] | None = None
    source: Source | None = None
    visitor_id: str
    group: MetadataGroup = MetadataGroup.CUSTOM
    values: dict[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountMetadata:
    """Values of an account's metadata fields."""

    event_id: str
    occurred_at: int
    account_id: str
    context: Context | None = None
    consent: dict[str, bool] | None = None
    source: Source | None = None
    group: MetadataGroup = MetadataGroup.CUSTOM
    values: dict[str, MetadataValue] = field(default_factory=dict)


Event: TypeAlias = DecisionEvent | TrackEvent | VisitorMetadata | AccountMetadata

EVENT_TYPES: tuple[type[Event], ...] = (DecisionEvent, TrackEvent, VisitorMetadata, AccountMetadata)


def partition_key(event: Event) -> bytes | None:
    """The Kafka key of `event`: the visitor id, UTF-8, so that a visitor's events share a partition.

    For an AccountMetadata the account id, for a TrackEvent without visitor id, or with an empty one, its anonymous
    id; None if it has neither.
    """
    if isinstance(event, AccountMetadata):
        return event.account_id.encode()
    if isinstance(event, TrackEvent) and not event.visitor_id and event.anonymous_id is not None:
        return event.anonymous_id.encode()
    visitor_id = event.visitor_id
    return None if visitor_id is None else visitor_id.encode()


def variation_as_sent(decision: DecisionEvent) -> str | None:
    """The variation that Pendo gets: `off` if the flag is not enabled; None: enabled without a variation."""
    return decision.variation_key if decision.enabled else "off"
