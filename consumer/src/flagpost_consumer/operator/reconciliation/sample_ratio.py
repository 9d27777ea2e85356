"""Whether visitors fall into the variations of experiments as they should, and whose decisions it is if not.

In: decisions in the order of their arrival, partition by partition, and the splits that are expected. Out: for each
experiment the test of `core.sample_ratio`, looked at after each hour; the services and SDKs that are off by
themselves; and, where the decisions are split as they should be, whether what was delivered of them is.

An experiment is a rule of type experiment of a flag (a rule of unknown type too, if the caller gives its split). A
visitor counts once in it, with the first variation and its source.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from flagpost_consumer.core.experiments import Experiment, Splits, experiment_of
from flagpost_consumer.core.sample_ratio import ALPHA, Counts, Shares, evidence, p_value, proportions
from flagpost_schemas import DecisionEvent, Source

HOUR_MS = 3_600_000
"""Between two looks. Visitors are kept by the hour of their arrival, and not each with its time."""


class Origin(StrEnum):
    """Where it is known from which split is expected."""

    OPTION = "option"
    """The caller."""
    DATAFILE = "datafile"
    """The traffic allocation that a publisher read."""
    EVEN = "even"
    """Nowhere: an even one is assumed."""


class Sender(NamedTuple):
    """Where decisions come from."""

    service: str
    sdk: str


class Assignment(NamedTuple):
    """A visitor was shown a variation by a rule that is an experiment, or may be."""

    experiment: Experiment
    variation: str
    source: Source | None
    visitor: int
    """A salted digest of the visitor within the experiment."""
    is_certain: bool
    """False: the rule's type is unknown."""


class Cell(NamedTuple):
    """What visitors are counted by."""

    experiment: Experiment
    is_certain: bool
    variation: str
    sender: Sender
    hour: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A service or an SDK whose own visitors are not split as they should be."""

    by: str
    """`service` or `sdk`."""
    name: str
    variations: dict[str, int]
    p_value: float
    """Times the number of services, or SDKs, that were tried."""
    rest_p_value: float
    """That of all others together: above ALPHA, it is this one alone."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The test of one experiment."""

    flag_key: str
    rule_key: str | None
    variations: dict[str, int]
    """Visitors decided."""
    expected: dict[str, float]
    """So many of them."""
    expected_from: Origin
    since_ms: int | None
    """Counted from there, for the expected split changed in the window; None: from its beginning."""
    p_value: float
    """The least of all looks."""
    skewed_since_ms: int | None
    """The end of the hour at which the test began to warn."""
    delivered: dict[str, int]
    """Those of the visitors to whom their variation was delivered."""
    delivered_p_value: float
    suspects: tuple[Suspect, ...]

    @property
    def skewed(self) -> bool:
        """Whether chance does not explain how visitors were decided."""
        return self.p_value <= ALPHA

    @property
    def delivered_skewed(self) -> bool:
        """Whether visitors were decided as they should be, and not delivered so."""
        return not self.skewed and self.delivered_p_value <= ALPHA


def assignment_of(event: DecisionEvent) -> Assignment | None:
    """The assignment that a decision is; None: it is none of an experiment's."""
    experiment = experiment_of(event)
    if experiment is None or event.variation_key is None:
        return None
    return Assignment(
        experiment,
        event.variation_key,
        event.source,
        hash((experiment, event.visitor_id)),
        event.rule_type is not None,
    )


def _sender(source: Source | None) -> Sender:
    if source is None:
        return Sender("unknown", "unknown")
    sdk = " ".join(filter(None, (source.sdk, source.sdk_version)))
    return Sender(source.service or "unknown", sdk or "unknown")


class Samples:
    """Visitors of experiments, each once."""

    def __init__(self) -> None:
        self._cells: dict[Cell, int] = {}
        self._variations: list[str] = []
        self._decided = array("Q")
        self._delivered = array("Q")
        self._seen: dict[int, int] = {}
        """A visitor to twice the number of its cell, plus one if it is delivered."""

    def take(self, assignment: Assignment, arrived_ms: int, *, delivered: bool) -> None:
        """A decision, and whether Pendo has been told of it. A partition's come in the order of their arrival."""
        seen = self._seen.get(assignment.visitor)
        if seen is None:
            seen = self._seen[assignment.visitor] = 2 * self._enter(assignment, arrived_ms)
        if delivered and not seen & 1 and self._variations[seen >> 1] == assignment.variation:
            self._seen[assignment.visitor] = seen | 1
            self._delivered[seen >> 1] += 1

    def partitions_end(self) -> None:
        """No more comes of these partitions, and so of these visitors: all of a visitor's are in one partition."""
        self._seen.clear()

    def _enter(self, assignment: Assignment, arrived_ms: int) -> int:
        experiment, variation, source, _, is_certain = assignment
        cell = Cell(experiment, is_certain, variation, _sender(source), arrived_ms // HOUR_MS)
        number = self._cells.get(cell)
        if number is None:
            number = self._cells[cell] = len(self._decided)
            self._variations.append(variation)
            self._decided.append(0)
            self._delivered.append(0)
        self._decided[number] += 1
        return number

    def by_experiment(self) -> dict[Experiment, Tallies]:
        """What was counted, by experiment."""
        found: dict[Experiment, Tallies] = {}
        for cell, number in self._cells.items():
            tally = Tally(cell, self._decided[number], self._delivered[number])
            found.setdefault(cell.experiment, []).append(tally)
        return found


class Tally(NamedTuple):
    """The visitors of a cell."""

    cell: Cell
    decided: int
    delivered: int


Tallies = list[Tally]


def check_ratios(samples: Samples, published: Splits, given: Mapping[str, Shares]) -> Iterator[SampleRatio]:
    """Test every experiment that has at least two variations to be compared.

    Args:
        samples: the visitors.
        published: those of datafiles.
        given: splits that the caller gives, by flag; they go before others, and only the variations that they name
            are compared.
    """
    for experiment, found in sorted(samples.by_experiment().items(), key=_by_name):
        flag, _ = experiment
        tallies = found if flag in given else [tally for tally in found if tally.cell.is_certain]
        split = published.of(experiment)
        if flag in given:
            shares, origin, since_ms = given[flag], Origin.OPTION, None
        elif split is not None:
            shares, origin, since_ms = split.shares, Origin.DATAFILE, split.since_ms
        else:
            shares, origin, since_ms = _even(tallies), Origin.EVEN, None
        if len(shares) > 1 and tallies:
            yield _check(experiment, _from(tallies, since_ms), shares, origin, since_ms)


def _by_name(item: tuple[Experiment, Tallies]) -> tuple[str, str]:
    (flag, rule), _ = item
    return flag, rule or ""


def _even(tallies: Tallies) -> Shares:
    return dict.fromkeys(sorted({tally.cell.variation for tally in tallies}), 1.0)


def _from(tallies: Tallies, since_ms: int | None) -> Tallies:
    """Those who came in hours after a moment."""
    if since_ms is None:
        return tallies
    return [tally for tally in tallies if tally.cell.hour * HOUR_MS >= since_ms]


def _check(
    experiment: Experiment, tallies: Tallies, shares: Shares, origin: Origin, since_ms: int | None
) -> SampleRatio:
    decided = _decided(tallies, shares)
    delivered = Counter[str]()
    for tally in tallies:
        delivered[tally.cell.variation] += tally.delivered
    visitors = sum(decided.values())
    least, since = _looks(tallies, shares)
    return SampleRatio(
        *experiment,
        variations=decided,
        expected={each: visitors * share for each, share in proportions(shares).items()},
        expected_from=origin,
        since_ms=since_ms,
        p_value=least,
        skewed_since_ms=since,
        delivered={variation: delivered[variation] for variation in shares},
        delivered_p_value=p_value(evidence(delivered, shares)),
        suspects=tuple(_suspects(tallies, shares)) if least <= ALPHA else (),
    )


def _decided(tallies: Iterable[Tally], shares: Shares) -> dict[str, int]:
    counts = Counter[str]()
    for tally in tallies:
        counts[tally.cell.variation] += tally.decided
    return {variation: counts[variation] for variation in shares}


def _looks(tallies: Tallies, shares: Shares) -> tuple[float, int | None]:
    """The least p-value of the looks after each hour, and the end of the hour at which it was first too small."""
    by_hour: dict[int, Counter[str]] = {}
    for tally in tallies:
        by_hour.setdefault(tally.cell.hour, Counter())[tally.cell.variation] += tally.decided
    counts, least, since = Counter[str](), 1.0, None
    for hour in sorted(by_hour):
        counts.update(by_hour[hour])
        least = min(least, p_value(evidence(counts, shares)))
        if since is None and least <= ALPHA:
            since = (hour + 1) * HOUR_MS
    return least, since


def _suspects(tallies: Tallies, shares: Shares) -> Iterator[Suspect]:
    """The services, and the SDKs, that are off by themselves where there are several."""
    for by in Sender._fields:
        groups: dict[str, Tallies] = {}
        for tally in tallies:
            groups.setdefault(getattr(tally.cell.sender, by), []).append(tally)
        if len(groups) == 1:
            continue
        for name, own in sorted(groups.items()):
            counts = _decided(own, shares)
            probability = min(1.0, len(groups) * _p(counts, shares))
            if probability <= ALPHA:
                others = [tally for each, found in groups.items() if each != name for tally in found]
                yield Suspect(by, name, counts, probability, _p(_decided(others, shares), shares))


def _p(counts: Counts, shares: Shares) -> float:
    return p_value(evidence(counts, shares))
