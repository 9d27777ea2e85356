"""How the stand-in behaves unless something else is scripted.

In: the choices of a test or the command line. Out: frozen settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from flagpost_consumer.demo.pendo_stand_in.traffic import Group, Kind

KEY_HEADER = "x-pendo-integration-key"
FORBIDDEN = 403


class Enforcement(StrEnum):
    """What happens to a request that breaks a rule; the violation is recorded in any case."""

    REFUSE = "refuse"
    RECORD = "record"


class UnmappedFields(StrEnum):
    """What happens to metadata for a field that the schema does not list under this API name."""

    ACCEPT = "accept"
    FAIL_RECORD = "fail_record"
    """The record is named in `errors`."""
    REFUSE_BATCH = "refuse_batch"
    """400 for the whole request, as Pendo does for a field that is not mapped."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What clients must present. In Pendo the track secret and the integration key are two different values."""

    track_secret: str = field(default="stand-in-track-secret", repr=False)
    integration_key: str = field(default="stand-in-integration-key", repr=False)
    refused_status: int = FORBIDDEN
    """The answer to a wrong key, with an empty body."""
    may_write: bool = True
    """False: the integration key may read, and metadata sent with it is refused."""


@dataclass(frozen=True, slots=True)
class MetadataField:
    """One field of Pendo's metadata schema."""

    api_name: str
    display_name: str
    kind: Kind = Kind.VISITOR
    group: Group = Group.CUSTOM
    type: str = "string"


@dataclass(frozen=True, slots=True)
class StandInConfig:
    """Settings of the stand-in; the defaults are Pendo's rules, enforced."""

    keys: Keys = Keys()
    key_header: str = KEY_HEADER
    visitor_interval_seconds: float = 1.0
    """Two track requests of one visitor may not arrive closer than this; 0 allows any pace."""
    on_pace: Enforcement = Enforcement.REFUSE
    """REFUSE answers 429."""
    on_bad_request: Enforcement = Enforcement.REFUSE
    """REFUSE answers 400; RECORD takes what can be parsed."""
    fields: tuple[MetadataField, ...] = ()
    unmapped_fields: UnmappedFields = UnmappedFields.ACCEPT
    error_members: tuple[str, ...] = ("index", "id")
    """Which members name a failed metadata record: any of index, id, visitorId, accountId."""
    latency_seconds: float = 0.0
    """Every answer of the API is delayed by this."""
    keep_bodies: bool = True
    """False, for load: only the newest `newest_kept` requests are kept, without bodies; counters stay exact."""
    newest_kept: int = 10_000
    keep_alive_seconds: float = 75.0
