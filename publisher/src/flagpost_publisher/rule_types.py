"""Which kind of rule made a decision, according to an Optimizely client's datafile.

In: an OptimizelyConfig, whenever the datafile changes; then the DECISION notification's `decision_info`. Out: the
value of a `RuleType`, or None if the datafile does not know the rule. Nothing is read while somebody waits for
decide().
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flagpost_publisher.traffic_allocation import read_splits
from flagpost_schemas import RuleType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DELIVERIES_AMONG_EXPERIMENTS: Final = frozenset({"td", "fr"})
"""Types of rules that OptimizelyConfig lists as experiments although they measure nothing: targeted deliveries and
feature rollouts (optimizely-sdk 5.7, `helpers.enums.ExperimentTypes`).
"""


EXPERIMENT: Final = RuleType.EXPERIMENT.value
DELIVERY: Final = RuleType.DELIVERY.value
HOLDOUT: Final = RuleType.HOLDOUT.value
NONE: Final = RuleType.NONE.value
"""Plain texts: hashing an enum member, which each event's encoding does, is a Python call."""


@dataclass(frozen=True, slots=True)
class RuleTypes:
    """The rules of one datafile; without one no rule is known."""

    by_id: Mapping[str | None, str] = field(default_factory=dict)
    """The SDK's `experiment_id`: of an experiment, a delivery or a holdout."""
    by_key: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By flag and rule key, for SDKs that pass no ids; these do not know holdouts either."""
    holdouts_exempt_deliveries: bool = False
    """Whether a delivery, or no rule, may decide for a user who is held out."""
    sends_flag_decisions: bool = True
    """Whether every decision sends an impression to Optimizely, not only experiments and holdouts."""
    splits: Mapping[tuple[str, str | None], Mapping[str, int]] = field(default_factory=dict)
    """The expected split of visitors, by flag and rule key."""

    def of(self, decision_info: Mapping[str, Any]) -> str | None:
        """What made the decision; called within decide()."""
        found = self.by_id.get(decision_info.get("experiment_id"))
        if found is not None:
            return found
        rule_key = decision_info["rule_key"]
        return NONE if rule_key is None else self.by_key.get((decision_info["flag_key"], rule_key))


def read_rule_types(config: Any) -> RuleTypes:  # noqa: ANN401 - optimizely is an extra
    """The rules in an `OptimizelyConfig`. Raises anything if it has another form."""
    datafile = json.loads(config.get_datafile())
    deliveries = set(_deliveries_among_experiments(datafile))
    by_id: dict[str | None, str] = {}
    by_key: dict[tuple[str, str], str] = {}
    for flag in config.features_map.values():
        for rule in flag.delivery_rules:
            by_id[rule.id] = by_key[flag.key, rule.key] = DELIVERY
        for rule in flag.experiment_rules:
            kind = DELIVERY if rule.id in deliveries else EXPERIMENT
            by_id[rule.id] = by_key[flag.key, rule.key] = kind
    everywhere = datafile.get("holdouts") or []
    for holdout in (*everywhere, *(datafile.get("localHoldouts") or [])):
        by_id[holdout["id"]] = HOLDOUT
    return RuleTypes(
        by_id,
        by_key,
        any(holdout.get("excludeTargetedDeliveries") for holdout in everywhere),
        bool(datafile.get("sendFlagDecisions")),
        {of: shares for of, shares in read_splits(datafile).items() if by_key.get(of) == EXPERIMENT},
    )


def held_out_in(impressions: Mapping[str, Any]) -> tuple[str, str] | None:
    """The user and flag of the last holdout's impression in a LOG_EVENT, if there is one."""
    found = None
    for visitor in impressions["visitors"]:
        for snapshot in visitor["snapshots"]:
            for decision in snapshot.get("decisions") or ():
                if decision["metadata"]["rule_type"] == HOLDOUT:
                    found = visitor["visitor_id"], decision["metadata"]["flag_key"]
    return found


def _deliveries_among_experiments(datafile: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the rules that a datafile lists as experiments but are not."""
    groups: Iterable[Mapping[str, Any]] = datafile.get("groups") or []
    grouped = (rule for group in groups for rule in group.get("experiments") or [])
    for rule in (*(datafile.get("experiments") or []), *grouped):
        if rule.get("type") in DELIVERIES_AMONG_EXPERIMENTS:
            yield rule["id"]
