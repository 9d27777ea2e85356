"""Which experiment a decision belongs to, and the split of traffic that publishers reported for each.

In: decisions; splits as publishers read them in Optimizely's datafile, one after the other. Out: experiments, and for
each the split that is expected now. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from sys import getsizeof
from typing import Any, NamedTuple

import orjson

from flagpost_consumer.core.splits.sample_ratio import Shares, proportions
from flagpost_schemas import DecisionEvent, RuleType

SPLIT_BYTES = 600
"""Bytes of one split, without its names."""
SHARE_BYTES = 200
MAX_SPLITS = 16
"""Splits remembered for one experiment: publishers decide what is reported, so it is bounded."""

Experiment = tuple[str, str | None]
"""A flag, and its rule; None: the publisher does not report rules."""


class Split(NamedTuple):
    """The expected split of an experiment."""

    shares: Shares
    since_ms: int | None = None
    """When another split was last reported, epoch ms: visitors before it may have been split differently. None:
    never.
    """


def experiment_of(event: DecisionEvent) -> Experiment | None:
    """The experiment that decided; also a rule of unknown type, which may be one. None: another rule, or none."""
    if event.rule_type not in (RuleType.EXPERIMENT, None):
        return None
    return event.flag_key, event.rule_key


def splits_in(report: Mapping[str, Any]) -> Iterator[tuple[Experiment, Shares]]:
    """The splits in a publisher's report (flagpost_publisher.impressions).

    Raises KeyError, TypeError, ValueError or AttributeError if it is not a report.
    """
    for row in report.get("splits", ()):
        flag, rule = str(row["flag_key"]), row["rule_key"]
        if rule is not None and not isinstance(rule, str):
            raise TypeError(rule)
        yield (flag, rule), {str(key): float(share) for key, share in row["shares"].items()}


def splits_of(value: bytes | None) -> tuple[int, list[tuple[Experiment, Shares]]]:
    """When a publisher's report ends, epoch ms, and the splits in it; nothing if the record is not a report."""
    try:
        report = orjson.loads(value or b"")
        return int(report["until"]), list(splits_in(report))
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, []  # `flagpost reconcile` counts these


class Splits:
    """The splits that publishers reported, in any order."""

    def __init__(self) -> None:
        self._told: dict[Experiment, dict[Proportions, int]] = {}
        """Each split that was reported for an experiment, and when it was last reported."""
        self.bytes_held = 0
        """Bytes that it takes in memory, at most."""

    def tell(self, experiment: Experiment, shares: Shares, at_ms: int) -> None:
        """A publisher read this split at this time, epoch ms."""
        told = self._told.setdefault(experiment, {})
        split = _key(shares)
        if split not in told:
            self.bytes_held += _size(experiment, split)
        told[split] = max(at_ms, told.get(split, at_ms))
        if len(told) > MAX_SPLITS:
            oldest = min(told, key=told.__getitem__)
            del told[oldest]
            self.bytes_held -= _size(experiment, oldest)

    def of(self, experiment: Experiment) -> Split | None:
        """The split that was reported last. While publishers disagree, it applies to none of the visitors so far."""
        told = self._told.get(experiment)
        if told is None:
            return None
        *others, newest = sorted(told, key=told.__getitem__)
        return Split(dict(newest), told[others[-1]] if others else None)


Proportions = tuple[tuple[str, float], ...]


def _size(experiment: Experiment, split: Proportions) -> int:
    names = getsizeof(experiment[0]) + getsizeof(experiment[1] or "")
    return SPLIT_BYTES + names + sum(SHARE_BYTES + getsizeof(variation) for variation, _ in split)


def _key(shares: Shares) -> Proportions:
    """Publishers decide what is reported: leave out what is not a share."""
    usable = {variation: share for variation, share in shares.items() if 0 < share < inf}
    split = ((variation, round(share, 6)) for variation, share in sorted(proportions(usable).items()))
    return tuple((variation, share) for variation, share in split if share)
