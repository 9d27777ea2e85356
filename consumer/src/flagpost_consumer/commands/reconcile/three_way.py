"""Optimizely's own decisions compared with Flagpost's, visitor by visitor.

In: the visitors in Optimizely's export; then the decisions that were published, and what became of them (through
`visitors`). Out: every visitor who is in only one of the two, with a cause. No I/O.

Visitors are compared by experiment and variation, by Optimizely's ids of these, which decisions carry. Decisions
within a minute of the window's begin or end are left out, because they may be on the other side of it here. So are
experiments that the export does not have: its files are one for each day and experiment, and some may be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from flagpost_consumer.commands.reconcile.counting import Row
from flagpost_consumer.commands.reconcile.lost_at_publishers import LostAtPublishers
from flagpost_consumer.commands.reconcile.visitors import Visitors
from flagpost_consumer.core.outcomes import PENDING, Reason
from flagpost_schemas import DecisionEvent, RuleType, Source, variation_as_sent
from flagpost_schemas.exposures import Exposure, exposure_of

EDGE_MS = 60_000
MAX_SERVICES = 20
"""The number of services that are remembered by name for an experiment."""


class AtOptimizely(NamedTuple):
    """The export's information about a visitor."""

    first_ms: int
    is_held_back: bool
    client: str = ""
    """Which SDK told Optimizely, and its version."""

    def joined(self, other: AtOptimizely | None) -> AtOptimizely:
        """The information of two files together."""
        if other is None:
            return self
        return AtOptimizely(
            min(self.first_ms, other.first_ms),
            self.is_held_back and other.is_held_back,
            self.client or other.client,
        )


class Unreadable(NamedTuple):
    """Rows of a file whose time cannot be read, so that it is not known whether they are of the window."""

    file: str
    rows: int
    example: str | None
    """One of their times; None: they have none."""


class Export(NamedTuple):
    """Optimizely's export."""

    visitors: Mapping[Exposure, AtOptimizely]
    unreadable: tuple[Unreadable, ...] = ()


class Cause(StrEnum):
    """Why a visitor is at Optimizely and not delivered to Pendo, or the reverse."""

    NEVER_PUBLISHED = "never_published"
    REFUSED = "refused"
    """By the publisher, whose reason it is."""
    FAILED = "failed"
    """Kafka did not take it from the publisher; the reason is Kafka's."""
    HELD_OUT = "held_out"
    FILTERED = "filtered"
    CONSENT = "consent"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    REJECTED = "rejected"
    PENDING = "pending"
    OTHER = "other"
    """The reason says which."""
    ONLY_FLAGPOST = "only_flagpost"


_CAUSES: Mapping[str, Cause] = {
    Reason.NO_VISITOR_ID: Cause.FILTERED,
    Reason.SUPPRESSED: Cause.FILTERED,
    Reason.NOT_SELECTED: Cause.FILTERED,
    Reason.FLAG_FILTERED: Cause.FILTERED,
    Reason.NOT_DISPATCHED: Cause.FILTERED,
    Reason.NO_CONSENT: Cause.CONSENT,
    Reason.DEDUPE: Cause.DUPLICATE,
    Reason.EXPIRED: Cause.EXPIRED,
    Reason.REJECTED: Cause.REJECTED,
    Reason.ATTEMPTS_EXHAUSTED: Cause.REJECTED,
    PENDING: Cause.PENDING,
}


class Difference(NamedTuple):
    """A visitor who is in only one of the two."""

    exposure: Exposure
    cause: Cause
    reason: str | None = None
    """The ledger's, if it was published; the publisher's, if it was refused or failed."""
    client: str = ""
    """The SDK that told Optimizely."""
    services: tuple[str, ...] = ()
    """Who published, refused or lost it; if nobody did, all who publish decisions of this experiment."""


@dataclass(slots=True)
class VariationCounts:
    """The visitors of an experiment's variation."""

    row: Row | None = None
    """Its flag and variation, as decisions name them; None: there is no decision of it."""
    decided: int = 0
    """At Optimizely, within the window."""
    published: int = 0
    """Of these."""
    delivered: int = 0
    """Of these."""
    by_cause: Counter[str] = field(default_factory=Counter)
    """By cause, those who were not delivered; and as `only_flagpost`, visitors who are not at Optimizely."""


class ThreeWay:
    """One comparison."""

    def __init__(self, export: Export) -> None:
        self._export = export.visitors
        self.unreadable = export.unreadable
        self._experiments = {exposure.experiment_id for exposure in export.visitors}
        self.visitors: Visitors[tuple[str, str]] = Visitors()
        """By experiment and variation; whoever reads the topics adds the settlements."""
        self._rows: dict[tuple[str, str], Row] = {}
        self._services: dict[str, set[str]] = {}
        self._only_here: dict[Exposure, str] = {}
        self.lost = LostAtPublishers()
        """What publishers report as refused or failed; whoever reads the topics sets it."""
        self.not_in_export: Counter[tuple[str, str]] = Counter()
        """Decisions of experiments that the export does not have, by experiment and flag."""
        self.without_ids = 0
        """Decisions that Optimizely was told of, but that do not name their experiment."""

    def publish(self, partition: int, offset: int, decision: DecisionEvent) -> None:
        """A decision is on the events topic."""
        if not decision.decision_event_dispatched:
            return
        if decision.experiment_id is None and decision.rule_type != RuleType.NONE:
            self.without_ids += 1
            return
        exposure = exposure_of(decision.experiment_id, decision.variation_id, decision.visitor_id)
        group = exposure[:2]
        if exposure.experiment_id not in self._experiments:
            self.not_in_export[exposure.experiment_id, decision.flag_key] += 1
            return
        if exposure.experiment_id:  # without one it may be of any flag
            self._rows.setdefault(group, (decision.flag_key, variation_as_sent(decision)))
        service = service_name(decision.source)
        services = self._services.setdefault(exposure.experiment_id, set())
        if len(services) < MAX_SERVICES:
            services.add(service)
        if exposure not in self._export:
            self._only_here.setdefault(exposure, service)
        self.visitors.publish(partition, offset, group, decision.visitor_id)

    def differences(self, since_ms: int | None, until_ms: int) -> Iterator[Difference]:
        """All visitors who are in only one of the two."""
        for exposure, told in self._export.items():
            difference = self._difference(exposure, told)
            if difference is not None and self._is_inside(exposure, told, since_ms, until_ms):
                yield difference
        for exposure, service in self._only_here.items():
            standing = self.visitors.standing(exposure[:2], exposure.visitor_id)
            yield Difference(exposure, Cause.ONLY_FLAGPOST, standing, services=(service,))

    def counts(self, since_ms: int | None, until_ms: int) -> dict[tuple[str, str], VariationCounts]:
        """By experiment and variation."""
        found = {group: VariationCounts(row) for group, row in self._rows.items()}
        for exposure, told in self._export.items():
            if self._is_inside(exposure, told, since_ms, until_ms):
                counts = found.setdefault(exposure[:2], VariationCounts())
                difference = self._difference(exposure, told)
                counts.decided += 1
                counts.published += self.visitors.standing(exposure[:2], exposure.visitor_id) is not None
                if difference is None:
                    counts.delivered += 1
                else:
                    counts.by_cause[difference.cause.value] += 1
        for exposure in self._only_here:
            found.setdefault(exposure[:2], VariationCounts()).by_cause[Cause.ONLY_FLAGPOST.value] += 1
        return found

    def left_out(self, since_ms: int | None, until_ms: int) -> int:
        """How many of the export were decided outside the window, or at its edges."""
        return sum(
            not self._is_inside(exposure, told, since_ms, until_ms) for exposure, told in self._export.items()
        )

    def _is_inside(self, exposure: Exposure, told: AtOptimizely, since_ms: int | None, until_ms: int) -> bool:
        """Whether a visitor is compared: its decisions are on the topic, or it was decided within the window."""
        if self.visitors.standing(exposure[:2], exposure.visitor_id) is not None:
            return True
        if since_ms is not None and told.first_ms < since_ms + EDGE_MS:
            return False
        return told.first_ms < until_ms - EDGE_MS

    def _difference(self, exposure: Exposure, told: AtOptimizely) -> Difference | None:
        standing = self.visitors.standing(exposure[:2], exposure.visitor_id)
        if standing == Reason.OK:
            return None
        if standing is not None:
            return Difference(exposure, _CAUSES.get(standing, Cause.OTHER), standing, told.client)
        lost = self.lost.end_of(exposure)
        if lost is not None:
            return Difference(exposure, Cause(lost.fate), lost.reason, told.client, (lost.service.title,))
        cause = Cause.HELD_OUT if told.is_held_back else Cause.NEVER_PUBLISHED
        services = tuple(sorted(self._services.get(exposure.experiment_id, ())))
        return Difference(exposure, cause, None, told.client, services)


def service_name(source: Source | None) -> str:
    """Who published: the service, and its SDK's version."""
    if source is None:
        return "no service"
    return " ".join(filter(None, (source.service or "no service", source.sdk, source.sdk_version)))
