"""The visitors of some flags' experiments as one process sees them, each once, and the evidence about their split.

In: decisions, partition by partition, in the order of their arrival; which partitions are given away; splits. Out:
visitors by experiment and variation, and for each experiment with a known split the evidence against it. No I/O.

Why the evidence of several processes may be added up: a visitor is in one partition, and a partition in one process,
so their visitors are different people. In a fair experiment each process's Bayes factor is a martingale of visitors
that no other process counts, and a product of such martingales is one too; logarithms add up. A partition that is
given away is no longer counted, so that nobody counts it twice. A restart, or a partition that moves, begins that
part again: evidence is lost, but none is invented. But each such beginning is another test, with a probability of
error of its own.

A seen visitor is a bit of a digest, in a fixed number of bits for each partition. Two visitors may share a bit: then
the second is not counted, whatever the variation, so that the split stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from flagpost_consumer.core.splits.experiments import Experiment, Splits, experiment_of
from flagpost_consumer.core.splits.sample_ratio import Shares, evidence, proportions
from flagpost_schemas import DecisionEvent

SEEN_BITS = 1 << 19
"""Bits for each partition: 64 KiB. With this many visitors, each in one experiment, 63 % of them are counted."""
MAX_VARIATIONS = 100
"""Variations of one flag, in all its experiments: publishers decide what they are called, so it is bounded."""
MAX_NAME_CHARACTERS = 100

Named = tuple[str, str, str]
"""A flag, a rule (empty: not reported) and a variation."""


class ExperimentVisitors:
    """The visitors of one process."""

    def __init__(self, flags: Iterable[str] = (), given: Mapping[str, Shares] | None = None) -> None:
        """`given`: the expected splits of flags from the settings; they take precedence over those of publishers."""
        self._flags = frozenset(flags)
        self._given = {} if given is None else given
        self._splits = Splits()
        self._partitions: dict[int, _Partition] = {}
        self._names: dict[str, set[tuple[Experiment, str]]] = {flag: set() for flag in self._flags}
        self._unnamed: set[Experiment] = set()
        """Experiments with a variation that is not counted: their split cannot be judged."""

    def take(self, partition: int, event: DecisionEvent) -> None:
        """A decision came."""
        if event.flag_key not in self._flags or event.variation_key is None:
            return
        experiment = experiment_of(event)
        if experiment is None or (event.rule_type is None and event.flag_key not in self._given):
            return
        if not self._is_named(experiment, event.variation_key):
            return
        place = self._partitions.get(partition)
        if place is None:
            place = self._partitions[partition] = _Partition()
        if place.is_new(experiment, event.visitor_id):
            place.counts[experiment, event.variation_key] += 1

    def forget(self, partitions: Iterable[int]) -> None:
        """These partitions belong to another process now."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def tell(self, experiment: Experiment, shares: Shares, at_ms: int) -> None:
        """A publisher read a split in its datafile at this time, epoch ms.

        If it differs, the count begins again; visitors that were counted are not counted again.
        """
        if experiment[0] not in self._flags or len(shares) > MAX_VARIATIONS:
            return
        before = self._splits.of(experiment)
        self._splits.tell(experiment, shares, at_ms)
        if before is not None and before != self._splits.of(experiment):
            for place in self._partitions.values():
                place.forget(experiment)

    def counts(self) -> Counter[tuple[Experiment, str]]:
        """The visitors of each experiment's variations."""
        found = Counter[tuple[Experiment, str]]()
        for place in self._partitions.values():
            found.update(place.counts)
        return found

    def shares(self, experiment: Experiment) -> Shares:
        """The expected split; empty: it is not known."""
        given = self._given.get(experiment[0])
        if given is not None:
            return proportions(given)
        split = self._splits.of(experiment)
        return {} if split is None else split.shares

    def evidence(self) -> dict[Experiment, float]:
        """The evidence of the counts, for each experiment with a known split (`core.splits.sample_ratio`)."""
        by_experiment: dict[Experiment, dict[str, int]] = {}
        for (experiment, variation), count in self.counts().items():
            by_experiment.setdefault(experiment, {})[variation] = count
        return {
            experiment: evidence(counts, shares)
            for experiment, counts in by_experiment.items()
            if experiment not in self._unnamed and len(shares := self.shares(experiment)) > 1
        }

    def _is_named(self, experiment: Experiment, variation: str) -> bool:
        """Whether a variation is counted: the first hundred of each flag are, if their names are short."""
        flag, rule = experiment
        names = self._names[flag]
        if (experiment, variation) in names:
            return True
        if len(names) >= MAX_VARIATIONS or max(len(rule or ""), len(variation)) > MAX_NAME_CHARACTERS:
            if len(self._unnamed) < MAX_VARIATIONS * len(self._flags):
                self._unnamed.add(experiment)
            return False
        names.add((experiment, variation))
        return True


class _Partition:
    """The visitors of one partition."""

    __slots__ = ("_seen", "counts")

    def __init__(self) -> None:
        self._seen = bytearray(SEEN_BITS // 8)
        self.counts = Counter[tuple[Experiment, str]]()

    def is_new(self, experiment: Experiment, visitor_id: str) -> bool:
        """Whether a visitor is seen in an experiment for the first time; note it."""
        digest = hash((experiment, visitor_id)) % SEEN_BITS
        byte, bit = digest >> 3, 1 << (digest & 7)
        if self._seen[byte] & bit:
            return False
        self._seen[byte] |= bit
        return True

    def forget(self, experiment: Experiment) -> None:
        """Begin an experiment's count again."""
        for each in [counted for counted in self.counts if counted[0] == experiment]:
            del self.counts[each]
