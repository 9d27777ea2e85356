"""Plans a record: its deliveries, and which of them end before anything is sent.

In: a decoded record (or why it could not be decoded), the policy, Pendo's metadata fields, the time. Out: planned
deliveries. The order of the checks is that of docs/contract.md#outcomes; duplicates come after, because they depend
on other records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.planning.ledger_ids import LedgerIds
from flagpost_consumer.core.planning.legible import quoted
from flagpost_consumer.core.planning.mapping import (
    VISITOR,
    Metadata,
    Track,
    decision_metadata,
    decision_properties,
    metadata_values,
    own_properties,
    track_properties,
    visitor_of,
)
from flagpost_consumer.core.planning.pendo_rules import (
    RESERVED_ADVICE,
    Properties,
    Repair,
    Rule,
    is_sendable,
    trim,
)
from flagpost_consumer.core.planning.selection import matches, not_selected
from flagpost_consumer.core.planning.suppressions import SUPPRESSED, Suppressions
from flagpost_consumer.core.policy import Policy, PropertiesPolicy, SelectSettings
from flagpost_consumer.core.record_weights import MAX_METADATA_FIELDS
from flagpost_consumer.core.records import DecodeFailure
from flagpost_schemas import (
    AccountMetadata,
    DecisionEvent,
    Event,
    MetadataValue,
    RuleType,
    TrackEvent,
    VisitorMetadata,
    variation_as_sent,
)

MAX_EVENT_ID_CHARACTERS = 128
MAX_LIKENESSES = 4_096
"""The common parts of at most this many kinds of decisions are remembered; then all are forgotten, and it begins
again.
"""
MAX_LIKE_CHARACTERS = 512
"""Nothing is remembered of decisions with longer names of flag, variation and rule: the memory is bounded."""
REPLAY_KIND_HEADER = "flagpost-replay-kind"

Fields = Mapping[str, str]
"""Pendo's fields of one group: from a configured name (API name or display name) to the API name."""

FieldCatalog = Mapping[tuple[str, str], Fields]
"""(`visitor` or `account`, group) to its fields; a group that could not be read is not in it."""


class Planned(NamedTuple):
    """One delivery: what to send, or how it ends without being sent."""

    kind: Kind
    ending: Ending | None = None
    """How the delivery ends without being sent; None: it is to be sent."""
    track: Track | None = None
    metadata: Metadata | None = None
    repairs: tuple[Repair, ...] = ()
    missing_fields: tuple[str, ...] = ()
    """Fields that Pendo does not have; the others are sent."""
    dedupe_key: bytes | None = None
    """What this track delivery has in common with its duplicates: 16 bytes."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What all decisions with the same flag, variation and rule have in common. Their deliveries share its dicts."""

    variation: str | None
    """As sent."""
    properties: Properties
    repairs: tuple[Repair, ...]
    broken: Ending | None
    """How they end if their properties break a rule."""
    dropped: Ending | None
    metadata: dict[str, MetadataValue]


class Planner:
    """Plans records by one policy."""

    def __init__(self, policy: Policy, suppressions: Suppressions | None = None) -> None:
        """`suppressions`: the visitors to whom nothing is sent; read at each use."""
        self._policy = policy
        self._suppressions = Suppressions() if suppressions is None else suppressions
        self._ids = LedgerIds(policy.ledger_key)
        self._selects = policy.select != SelectSettings()
        self._max_age_ms = policy.delivery.max_age_seconds * 1000
        self._max_future_ms = policy.delivery.max_future_seconds * 1000
        self._likenesses: dict[tuple[object, ...], Likeness] = {}
        self.fields: FieldCatalog = {}
        """Pendo's metadata fields, as last read."""

    def plan(self, event: Event | DecodeFailure, now_ms: int) -> tuple[Planned, ...]:
        """Return the deliveries of one record; there is always at least one."""
        if isinstance(event, DecisionEvent):
            return self._decision(event, now_ms)
        if isinstance(event, TrackEvent):
            return (self._track_event(event, now_ms),)
        if isinstance(event, DecodeFailure):
            return (Planned(Kind.UNKNOWN, Ending(event.reason, event.detail)),)
        return (self._metadata_event(event, now_ms),)

    def _decision(self, event: DecisionEvent, now_ms: int) -> tuple[Planned, ...]:
        likeness = self._likeness(event)
        invalid = self._invalid(event, now_ms) or _empty(event.flag_key, "flag_key")
        dropped = self._dropped(event, event.visitor_id) or likeness.dropped
        track = self._decision_track(event, likeness, invalid or likeness.broken or dropped, now_ms)
        if not likeness.metadata:
            return (track,)
        metadata = Metadata("visitor", "custom", event.visitor_id, likeness.metadata)
        return track, self._metadata(Kind.VISITOR_METADATA, metadata, invalid, dropped)

    def _decision_track(
        self, event: DecisionEvent, likeness: Likeness, ending: Ending | None, now_ms: int
    ) -> Planned:
        ending = ending or self._expired(event, now_ms)
        name = self._policy.decisions.event_name
        visitor_id, occurred_at = event.visitor_id, event.occurred_at
        track = Track(visitor_id, event.account_id, name, occurred_at, likeness.properties, event.context)
        key = None
        if not ending:
            key = self._ids.dedupe_key(decision_key(visitor_id, event.flag_key, likeness.variation))
        return Planned(Kind.TRACK, ending, track, None, likeness.repairs, (), key)

    def _likeness(self, event: DecisionEvent) -> Likeness:
        """What a decision has in common with others; worked out once."""
        if self._policy.decisions.attribute_properties:  # these differ from visitor to visitor
            return self._new_likeness(event)
        key = (
            event.flag_key,
            event.variation_key,
            event.rule_key,
            event.enabled,
            event.decision_event_dispatched,
            event.rule_type,
        )
        likeness = self._likenesses.get(key)
        if likeness is None:
            likeness = self._new_likeness(event)
            named = (event.flag_key, event.variation_key, event.rule_key, event.rule_type)
            if sum(len(name or "") for name in named) <= MAX_LIKE_CHARACTERS:
                if len(self._likenesses) >= MAX_LIKENESSES:
                    self._likenesses.clear()
                self._likenesses[key] = likeness
        return likeness

    def sent_likeness(self, event: DecisionEvent) -> Likeness | None:
        """What decisions like this one have in common, with the metadata values under Pendo's own names. None if the
        common part may end them at planning.
        """
        likeness = self._likeness(event)
        if likeness.broken or likeness.dropped or not event.flag_key or self._selects:
            return None
        if not likeness.metadata:
            return likeness
        values = Metadata(VISITOR, "custom", event.visitor_id, likeness.metadata)
        planned = self._metadata(Kind.VISITOR_METADATA, values, None, None)
        if planned.ending is not None or planned.missing_fields or planned.metadata is None:
            return None
        return replace(likeness, metadata=planned.metadata.values)

    def is_sent(self, visitor_id: str, occurred_at: int, now_ms: int) -> bool:
        """Whether a decision without consent information would be sent, as far as these values tell."""
        return (
            bool(visitor_id)
            and max(0, now_ms - self._max_age_ms) <= occurred_at <= now_ms + self._max_future_ms
            and not self._policy.consent.required
            and not self._suppressions.hold(visitor_id)
        )

    def _new_likeness(self, event: DecisionEvent) -> Likeness:
        decisions = self._policy.decisions
        properties, repairs, broken = self._fit(
            decision_properties(event, decisions), own_properties(decisions)
        )
        return Likeness(
            variation_as_sent(event),
            properties,
            repairs,
            broken,
            self._decision_dropped(event),
            decision_metadata(event, decisions),
        )

    def _track_event(self, event: TrackEvent, now_ms: int) -> Planned:
        mapping = self._policy.mapping
        visitor_id = visitor_of(event, mapping)
        name = mapping.events.get(event.event, event.event)
        properties, repairs, broken = self._fit(track_properties(event, name, mapping), ())
        ending = (
            self._invalid(event, now_ms)
            or _empty(event.event, "event")
            or broken
            or self._dropped(event, visitor_id)
            or self._expired(event, now_ms)
        )
        return Planned(
            Kind.TRACK,
            ending,
            Track(visitor_id or "", event.account_id, name, event.occurred_at, properties, event.context),
            repairs=repairs,
            dedupe_key=None if ending else event_key(event.event_id),
        )

    def _metadata_event(self, event: VisitorMetadata | AccountMetadata, now_ms: int) -> Planned:
        invalid = self._invalid(event, now_ms) or _too_many_fields(event)
        values = {} if invalid else metadata_values(event)
        if not invalid and not values:
            invalid = Ending(
                Reason.INVALID, "values holds nothing that can be sent; publish at least one field"
            )
        if isinstance(event, AccountMetadata):
            metadata = Metadata("account", event.group.value, event.account_id, values)
            invalid = invalid or _empty(event.account_id, "account_id")
            dropped = self._unwanted(event)
            return self._metadata(Kind.ACCOUNT_METADATA, metadata, invalid, dropped)
        metadata = Metadata("visitor", event.group.value, event.visitor_id, values)
        return self._metadata(
            Kind.VISITOR_METADATA, metadata, invalid, self._dropped(event, event.visitor_id)
        )

    def _metadata(
        self, kind: Kind, metadata: Metadata, invalid: Ending | None, dropped: Ending | None
    ) -> Planned:
        if not invalid and not self._policy.can_send_metadata:
            invalid = Ending(
                Reason.INVALID, "metadata needs Pendo's integration key: set pendo.integration_key"
            )
        resolved, missing = self._resolve(metadata)
        if not resolved.values and missing:
            detail = (
                f"Pendo has no {metadata.target} {metadata.group} field {quoted(missing[0])}; "
                "flagpost check says what to create there"
            )
            dropped = dropped or Ending(Reason.FIELD_MISSING, detail)
        return Planned(kind, invalid or dropped, metadata=resolved, missing_fields=missing)

    def _resolve(self, metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
        fields = self.fields.get((metadata.target, metadata.group))
        if fields is None:
            return metadata, ()
        values: dict[str, MetadataValue] = {}
        missing = []
        for name, value in metadata.values.items():
            if (api_name := fields.get(name)) is None:
                missing.append(name)
            else:
                values[api_name] = value
        return Metadata(metadata.target, metadata.group, metadata.target_id, values), tuple(missing)

    def _fit(
        self, given: Properties, fixed_names: tuple[str, ...]
    ) -> tuple[Properties, tuple[Repair, ...], Ending | None]:
        """Make properties follow Pendo's rules, or return the rule that they break."""
        sendable = {name: value for name, value in given.items() if is_sendable(value)}
        properties, repairs = trim(sendable, fixed_names=fixed_names)
        if self._policy.mapping.properties_policy is PropertiesPolicy.TRIM:
            return properties, repairs, None
        endless = [name for name, value in given.items() if value is not None and not is_sendable(value)]
        if endless:
            return (
                properties,
                (),
                Ending(
                    Reason.INVALID,
                    f"property {quoted(endless[0])} is not a finite number; leave it out instead",
                ),
            )
        if repairs:
            return properties, (), Ending(Reason.INVALID, _breach(repairs[0]))
        return properties, (), None

    def _invalid(self, event: Event, now_ms: int) -> Ending | None:
        if len(event.event_id) > MAX_EVENT_ID_CHARACTERS:
            return Ending(
                Reason.INVALID,
                f"event_id has {len(event.event_id)} characters; at most {MAX_EVENT_ID_CHARACTERS} are allowed",
            )
        ahead_ms = event.occurred_at - now_ms
        if ahead_ms > self._max_future_ms:
            return Ending(
                Reason.INVALID,
                f"occurred_at is {ahead_ms // 1000} s ahead of the consumer's clock, but "
                f"delivery.max_future_seconds allows {self._policy.delivery.max_future_seconds:g}; "
                "check the clock of the service",
                by_clock=True,
            )
        if event.occurred_at < 0:
            return Ending(Reason.INVALID, "occurred_at is before 1970; it must be epoch milliseconds")
        return None

    def _dropped(self, event: Event, visitor_id: str | None) -> Ending | None:
        if not visitor_id:
            return Ending(Reason.NO_VISITOR_ID, "the event has no visitor id")
        if self._suppressions.hold(visitor_id):
            return SUPPRESSED
        return self._unwanted(event)

    def _unwanted(self, event: Event) -> Ending | None:
        unselected = not_selected(event, self._policy.select) if self._selects else None
        return unselected or self._no_consent(event)

    def _no_consent(self, event: Event) -> Ending | None:
        consent = self._policy.consent
        if event.consent is None and not consent.required:
            return None
        granted = None if event.consent is None else event.consent.get(consent.category)
        if granted is False:
            return Ending(Reason.NO_CONSENT, f"consent to {consent.category} is denied")
        if granted is None and consent.required:
            return Ending(
                Reason.NO_CONSENT,
                f"the event says nothing about consent to {consent.category}, which is required",
            )
        return None

    def _decision_dropped(self, event: DecisionEvent) -> Ending | None:
        decisions = self._policy.decisions
        flag = event.flag_key
        if decisions.flags_allow is not None and not matches(flag, decisions.flags_allow):
            return Ending(Reason.FLAG_FILTERED, "decisions.flags_allow has no pattern for the flag")
        if decisions.flags_deny is not None and matches(flag, decisions.flags_deny):
            return Ending(Reason.FLAG_FILTERED, "decisions.flags_deny has a pattern for the flag")
        if decisions.experiments_only and not _is_of_an_experiment(event):
            return Ending(
                Reason.NOT_DISPATCHED, "the decision is not an experiment's (decisions.experiments_only)"
            )
        return None

    def _expired(self, event: Event, now_ms: int) -> Ending | None:
        if now_ms <= event.occurred_at + self._max_age_ms:
            return None
        return expired(self._policy.delivery.max_age_seconds)

    def deadline_ms(self, event: Event | DecodeFailure) -> float:
        """The last moment, epoch ms, at which an event's track delivery may be sent."""
        return inf if isinstance(event, DecodeFailure) else event.occurred_at + self._max_age_ms


def replayed_only(
    planned: Sequence[Planned], headers: Sequence[tuple[str, bytes | None]]
) -> Sequence[Planned]:
    """Of a replayed record, only the delivery that was dead-lettered; all if it could not be decoded, then or now."""
    named = next((value for name, value in headers if name == REPLAY_KIND_HEADER), None)
    kind = None if named is None else _KINDS.get(named)
    if kind is None or any(plan.kind is Kind.UNKNOWN for plan in planned):
        return planned
    chosen = [plan for plan in planned if plan.kind is kind]
    return chosen or [Planned(kind, Ending(Reason.INVALID, _NOT_PLANNED))]


_KINDS = {kind.value.encode(): kind for kind in Kind if kind is not Kind.UNKNOWN}
_NOT_PLANNED = (
    "a replay of a delivery that the settings do not plan (decisions.visitor_metadata, or no variation); "
    "set what it needs, then replay it again"
)


def expired(max_age_seconds: float) -> Ending:
    """The ending of a track delivery that is too old for Pendo."""
    return Ending(
        Reason.EXPIRED,
        f"older than delivery.max_age_seconds, {max_age_seconds:g} s; Pendo ignores events over 7 days old",
        by_clock=True,
    )


def decision_key(visitor_id: str, flag_key: str, variation: str | None) -> bytes:
    """What duplicate decisions have in common: visitor, flag and variation as sent."""
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    text = f"{len(visitor_id)}:{visitor_id}{of_flag(flag_key, variation)}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def of_flag(flag_key: str, variation: str | None) -> str:
    """The part of a decision's key that visitors share."""
    return f"{len(flag_key)}:{flag_key}{'' if variation is None else '=' + variation}"


def key_of_ascii(visitor_id: bytes, of_flag: bytes) -> bytes:
    """The same key, for a visitor id of ASCII characters only."""
    return hashlib.blake2b(b"%d:%b%b" % (len(visitor_id), visitor_id, of_flag), digest_size=16).digest()


def event_key(event_id: str) -> bytes:
    """What duplicates of a TrackEvent have in common: the event id."""
    return hashlib.blake2b(event_id.encode(), digest_size=16, person=b"track event").digest()


def _is_of_an_experiment(decision: DecisionEvent) -> bool:
    """Whether an experiment decided. For a rule of unknown type: whether an impression was sent to Optimizely."""
    if decision.rule_type in _RULE_TYPES:
        return decision.rule_type == RuleType.EXPERIMENT
    return decision.decision_event_dispatched


_RULE_TYPES = frozenset(RuleType)


def _empty(value: str, field: str) -> Ending | None:
    return None if value else Ending(Reason.INVALID, f"{field} is empty; the service must set it")


def _too_many_fields(event: VisitorMetadata | AccountMetadata) -> Ending | None:
    count = len(event.values)
    if count <= MAX_METADATA_FIELDS:
        return None
    return Ending(
        Reason.INVALID,
        f"values has {count} fields, but an event may have {MAX_METADATA_FIELDS}: publish them in several",
    )


def _breach(repair: Repair) -> str:
    explained = _EXPLAINED[repair.rule]
    return (
        f"rule {repair.rule.value}: property {quoted(repair.field)} {explained}; "
        "mapping.properties_policy trim would repair it"
    )


_EXPLAINED: dict[Rule, str] = {
    Rule.NAME_CHARACTERS: "has characters other than letters, digits and underscore",
    Rule.NAME_DIGIT: "begins with a digit",
    Rule.NAME_UNDERSCORES: "begins or ends with two underscores",
    Rule.NAME_LENGTH: "has a name of more than 31 characters",
    Rule.NAME_COLLISION: "has the same name as another once both are repaired",
    Rule.NAME_RESERVED: f"has a reserved name: {RESERVED_ADVICE}",
    Rule.SIZE: "takes the properties over 511 bytes of JSON",
}
