"""Which experiment a decision is of, and the split of traffic that publishers told of each.

In: decisions; splits as publishers read them in Optimizely's datafile, one after the other. Out: experiments, and for
each the split that is expected now. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, NamedTuple

import orjson

from flagpost_consumer.core.sample_ratio import Shares, proportions
from flagpost_schemas import DecisionEvent, RuleType

MAX_SPLITS = 16
"""Of one experiment so many are remembered: whoever publishes decides what is told."""

Experiment = tuple[str, str | None]
"""A flag, and its rule; None: a publisher that does not tell rules."""


class Split(NamedTuple):
    """The expected split of an experiment."""

    shares: Shares
    since_ms: int | None = None
    """When another was last told, epoch ms; before it visitors were split so or so. None: none was."""


def experiment_of(event: DecisionEvent) -> Experiment | None:
    """The experiment that decided, or what may be one, for its type is unknown; None: another rule, or none."""
    if event.rule_type not in (RuleType.EXPERIMENT, None):
        return None
    return event.flag_key, event.rule_key


def splits_in(report: Mapping[str, Any]) -> Iterator[tuple[Experiment, Shares]]:
    """The splits in a publisher's report (flagpost_publisher.impressions).

    Raises KeyError, TypeError, ValueError, AttributeError for what is none.
    """
    for row in report.get("splits", ()):
        flag, rule = str(row["flag_key"]), row["rule_key"]
        if rule is not None and not isinstance(rule, str):
            raise TypeError(rule)
        yield (flag, rule), {str(key): float(share) for key, share in row["shares"].items()}


def splits_of(value: bytes | None) -> tuple[int, list[tuple[Experiment, Shares]]]:
    """When a publisher's report ends, epoch ms, and the splits in it; of a record that is none, nothing."""
    try:
        report = orjson.loads(value or b"")
        return int(report["until"]), list(splits_in(report))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, []  # `flagpost reconcile` counts these


class Splits:
    """The splits that publishers told, in any order."""

    def __init__(self) -> None:
        self._told: dict[Experiment, dict[Proportions, int]] = {}
        """Each split that was told of an experiment to when it was last told."""

    def tell(self, experiment: Experiment, shares: Shares, at_ms: int) -> None:
        """A publisher read this split; epoch ms."""
        told = self._told.setdefault(experiment, {})
        split = _key(shares)
        told[split] = max(at_ms, told.get(split, at_ms))
        if len(told) > MAX_SPLITS:
            del told[min(told, key=told.__getitem__)]

    def of(self, experiment: Experiment) -> Split | None:
        """The split that was told last. While publishers disagree it holds for nobody who has come so far."""
        told = self._told.get(experiment)
        if told is None:
            return None
        *others, newest = sorted(told, key=told.__getitem__)
        return Split(dict(newest), told[others[-1]] if others else None)


Proportions = tuple[tuple[str, float], ...]


def _key(shares: Shares) -> Proportions:
    """Whoever publishes decides what is told: what is no share is left out."""
    usable = {variation: share for variation, share in shares.items() if 0 < share < inf}
    split = ((variation, round(share, 6)) for variation, share in sorted(proportions(usable).items()))
    return tuple((variation, share) for variation, share in split if share)
