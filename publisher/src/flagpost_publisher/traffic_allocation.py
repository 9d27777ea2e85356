"""The expected split of an experiment's visitors: the traffic allocation in its datafile.

In: a datafile, version 4. Out: for each rule that may be an experiment the shares of its variations; none if the
split is not fixed (bandits move it from visitor to visitor). Read with the rules, never within decide().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BANDITS: Final = frozenset({"mab", "cmab"})
"""Types of experiments without a fixed split (optimizely-sdk 5.7, `helpers.enums.ExperimentTypes`)."""

Shares: TypeAlias = "dict[str, int]"
"""Keys of variations and their parts of 10,000; parts without a variation are left out."""


def read_splits(datafile: Mapping[str, Any]) -> dict[tuple[str, str], Shares]:
    """The splits by flag and rule. Raises anything if the datafile has another form."""
    rules = {rule["id"]: rule for rule in _experiments(datafile)}
    return {
        (flag["key"], rules[identity]["key"]): _shares(rules[identity])
        for flag in datafile.get("featureFlags") or ()
        for identity in flag.get("experimentIds") or ()
        if identity in rules
    }


def _experiments(datafile: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from datafile.get("experiments") or ()
    for group in datafile.get("groups") or ():
        yield from group.get("experiments") or ()


def _shares(rule: Mapping[str, Any]) -> Shares:
    if rule.get("type") in BANDITS or rule.get("cmab"):
        return {}
    keys = {variation["id"]: variation["key"] for variation in rule["variations"]}
    shares: Shares = {}
    begin = 0
    for place in rule["trafficAllocation"]:  # one after the other; a variation may have several
        end, key = place["endOfRange"], keys.get(place["entityId"])
        if key is not None and end > begin:
            shares[key] = shares.get(key, 0) + end - begin
        begin = max(begin, end)
    return shares
