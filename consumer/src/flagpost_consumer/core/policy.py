"""The settings that decide, with their defaults and limits; the engine gets them once, at start.

In: the sections of the settings file (delivery, dedupe, select, decisions, metadata, mapping, consent). Out: frozen
models; the engine reads no other settings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from flagpost_settings.clocks import DeliveryClocks
from flagpost_settings.section import EMPTY_IF_NULL, MAX_COUNT, PositiveInt, PositiveSeconds, Seconds, Section

PENDO_MAX_AGE_SECONDS = 604_800.0
"""Pendo does not process track events older than seven days (Pendo's track event documentation)."""

PENDO_MAX_METADATA_RECORDS = 1_000
"""The most records of one metadata request (Pendo's metadata API documentation)."""

PerMinute = Annotated[float, Field(ge=0.001, le=MAX_COUNT, allow_inf_nan=False)]


class AnonymousPolicy(StrEnum):
    """What to do with a TrackEvent without a visitor id."""

    DROP = "drop"
    AS_VISITOR = "as_visitor"
    """Send it under its anonymous id, like an identified visitor's."""
    AS_ANONYMOUS = "as_anonymous"
    """Send it under the name that Pendo's own agent gives to anonymous visitors."""


class PropertiesPolicy(StrEnum):
    """What to do with properties that break Pendo's rules."""

    TRIM = "trim"
    REJECT = "reject"


class DeliverySettings(DeliveryClocks, extra="forbid"):
    """How deliveries are paced, retried and given up."""

    visitor_interval_seconds: Seconds = 1.0
    max_pending: PositiveInt = 20_000
    max_pending_bytes: PositiveInt = 67_108_864
    max_pending_per_visitor: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 600
    max_attempts: PositiveInt = 10
    max_age_seconds: Annotated[float, Field(gt=0, le=PENDO_MAX_AGE_SECONDS)] = 600_000.0
    drain_seconds: Seconds = 20.0


class DedupeSettings(Section):
    """How long and how many sent keys are remembered."""

    ttl_seconds: Seconds = 1800.0
    max_entries: PositiveInt = 2_000_000


class Patterns(Section):
    """Glob patterns; `allow`: None lets everything through; `deny`: None stops nothing."""

    allow: list[str] | None = None
    deny: list[str] | None = None


class SelectSettings(Section):
    """Which events are sent, by where they come from."""

    environments: Annotated[Patterns, EMPTY_IF_NULL] = Patterns()
    services: Annotated[Patterns, EMPTY_IF_NULL] = Patterns()
    accounts: Annotated[Patterns, EMPTY_IF_NULL] = Patterns()


class DecisionsSettings(Section):
    """Which decisions are sent, and as what."""

    event_name: Annotated[str, Field(min_length=1)] = "Experiment Viewed"
    experiments_only: bool = False
    rule_type_property: bool = False
    flags_allow: list[str] | None = None
    flags_deny: list[str] | None = None
    attribute_properties: list[str] = Field(default=[])
    visitor_metadata: bool = True
    metadata_field: Annotated[str, Field(min_length=1)] = "[Optimizely] {flag_key}"
    metadata_fields: dict[str, str] = Field(default={})


class MetadataSettings(Section):
    """How metadata values are batched."""

    batch_size: Annotated[int, Field(gt=0, le=PENDO_MAX_METADATA_RECORDS)] = PENDO_MAX_METADATA_RECORDS
    batch_bytes: Annotated[int, Field(ge=65_536, le=MAX_COUNT)] = 4_194_304
    linger_seconds: Seconds = 2.0
    create_missing: bool = True


class MappingSettings(Section):
    """How TrackEvents become Pendo's track events."""

    events: dict[str, str] = Field(
        default={
            "page": "page_view",
            "Product Viewed": "product_viewed",
            "Order Completed": "purchase",
        }
    )
    anonymous: Annotated[AnonymousPolicy, Field(strict=False)] = AnonymousPolicy.DROP
    identity_properties: list[Annotated[str, Field(pattern="^(anonymous_id|locale)$")]] = Field(default=[])
    properties_policy: Annotated[PropertiesPolicy, Field(strict=False)] = PropertiesPolicy.TRIM


class ConsentSettings(Section):
    """Whose events may be sent."""

    category: Annotated[str, Field(min_length=1)] = "analytics"
    required: bool = False


class EndpointLimits(Section):
    """What the engine may have in flight at Pendo; part of the `pendo` section."""

    max_connections: PositiveInt = 64
    request_timeout_seconds: PositiveSeconds = 10.0
    metadata_timeout_seconds: PositiveSeconds = 60.0
    track_requests_per_minute: PerMinute | None = None
    metadata_requests_per_minute: PerMinute | None = 1000.0


class Policy(Section):
    """All settings by which the engine decides."""

    delivery: DeliverySettings = DeliverySettings()
    dedupe: DedupeSettings = DedupeSettings()
    select: SelectSettings = SelectSettings()
    decisions: DecisionsSettings = DecisionsSettings()
    metadata: MetadataSettings = MetadataSettings()
    mapping: MappingSettings = MappingSettings()
    consent: ConsentSettings = ConsentSettings()
    limits: EndpointLimits = EndpointLimits()
    ledger_key: bytes = Field(default=b"", repr=False)
    """The key for hashing ids in the ledger (`ledger_ids`); empty: ids are not hashed."""
    can_send_metadata: bool = True
    """False without an integration key: metadata records are then dead-lettered `invalid`."""
