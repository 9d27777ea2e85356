"""Whether visitors are distributed over the variations of experiments as they should be, and whose decisions cause it
if not.

In: decisions in the order of their arrival, partition by partition, and the expected splits. Out: for each experiment
the test of `core.splits.sample_ratio`, repeated after each hour; the services and SDKs that are off by themselves;
and, if the decisions are split as they should be, whether the delivered ones are.

An experiment is a rule of type experiment of a flag (also a rule of unknown type, if the caller gives its split). A
visitor counts once in it, with the first variation and its source.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from sys import getsizeof
from typing import NamedTuple

from flagpost_consumer.core.splits.experiments import Experiment, Splits, experiment_of
from flagpost_consumer.core.splits.sample_ratio import ALPHA, Counts, Shares, evidence, p_value, proportions
from flagpost_schemas import DecisionEvent, Source

SEEN_BYTES = 190
"""Bytes of one visitor of an experiment: its digest, the number of its cell, a place in a growing table."""
CELL_BYTES = 1_500
"""Bytes of a cell, without the texts of its names."""
HOUR_MS = 3_600_000
"""Between two tests. Visitors are kept by the hour of their arrival, not each with its time."""


class Origin(StrEnum):
    """Where the expected split comes from."""

    OPTION = "option"
    """The caller."""
    DATAFILE = "datafile"
    """The traffic allocation that a publisher read."""
    EVEN = "even"
    """Unknown: an even split is assumed."""


class Sender(NamedTuple):
    """Where decisions come from."""

    service: str
    sdk: str


class Assignment(NamedTuple):
    """A visitor was shown a variation by a rule that is, or may be, an experiment."""

    experiment: Experiment
    variation: str
    source: Source | None
    visitor: int
    """A salted digest of the visitor within the experiment."""
    is_certain: bool
    """False: the rule's type is unknown."""


class Cell(NamedTuple):
    """The key by which visitors are counted."""

    experiment: Experiment
    is_certain: bool
    variation: str
    sender: Sender
    hour: int


CellParts = tuple[Experiment, bool, str, Sender, int]
"""A Cell, made in half the time."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A service or an SDK whose own visitors are not split as they should be."""

    by: str
    """`service` or `sdk`."""
    name: str
    variations: dict[str, int]
    p_value: float
    """Multiplied by the number of services, or SDKs, that were tested."""
    rest_p_value: float
    """The p-value of all others together: above ALPHA, only this one is off."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The test of one experiment."""

    flag_key: str
    rule_key: str | None
    variations: dict[str, int]
    """Visitors decided."""
    expected: dict[str, float]
    """The expected numbers of them."""
    expected_from: Origin
    since_ms: int | None
    """Counted from there, because the expected split changed in the window; None: from its beginning."""
    p_value: float
    """The least p-value of all tests."""
    skewed_since_ms: int | None
    """The end of the hour at which the test began to warn."""
    delivered: dict[str, int]
    """The visitors to whom their variation was delivered."""
    delivered_p_value: float
    suspects: tuple[Suspect, ...]

    @property
    def skewed(self) -> bool:
        """Whether chance does not explain how visitors were decided."""
        return self.p_value <= ALPHA

    @property
    def delivered_skewed(self) -> bool:
        """Whether visitors were decided as they should be, but not delivered so."""
        return not self.skewed and self.delivered_p_value <= ALPHA


def assignment_of(event: DecisionEvent) -> Assignment | None:
    """The assignment of a decision; None: it does not belong to an experiment."""
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


UNKNOWN_SENDER = Sender("unknown", "unknown")


def _sender_of(source: Source | None) -> Sender:
    if source is None:
        return UNKNOWN_SENDER
    sdk = " ".join(filter(None, (source.sdk, source.sdk_version)))
    return Sender(source.service or "unknown", sdk or "unknown")


class Samples:
    """Visitors of experiments, each once."""

    def __init__(self) -> None:
        self._cells: dict[CellParts, int] = {}
        self._last_sender: tuple[Source | None, Sender] = (None, UNKNOWN_SENDER)
        """Consecutive events mostly come from the same source, which then is one object."""
        self._variations: list[str] = []
        self._decided = array("Q")
        self._delivered = array("Q")
        self._seen: dict[int, int] = {}
        """For each visitor twice the number of its cell, plus one if it is delivered."""
        self._text_bytes = 0
        """Bytes of the cells' names: publishers decide what they are."""

    @property
    def bytes_held(self) -> int:
        """Bytes in memory, at most."""
        return SEEN_BYTES * len(self._seen) + CELL_BYTES * len(self._cells) + self._text_bytes

    def take(self, assignment: Assignment, arrived_ms: int, *, delivered: bool) -> bool:
        """A decision, and whether Pendo has it. Those of a partition come in the order of their arrival.

        Returns whether the visitor will count as delivered once this decision is (`deliver`), and does not yet.
        """
        visitor = assignment.visitor
        seen = self._seen.get(visitor)
        if seen is None:
            cell = self._enter(assignment, arrived_ms)
            self._seen[visitor] = 2 * cell + delivered
            self._delivered[cell] += delivered
            return not delivered
        if seen & 1 or self._variations[seen >> 1] != assignment.variation:
            return False
        if delivered:
            self.deliver(visitor)
        return not delivered

    def deliver(self, visitor: int) -> None:
        """Pendo has the variation with which a visitor counts."""
        seen = self._seen[visitor]
        if not seen & 1:
            self._seen[visitor] = seen | 1
            self._delivered[seen >> 1] += 1

    def partitions_end(self) -> None:
        """These partitions are finished, and so their visitors: all decisions of a visitor are in one partition."""
        self._seen.clear()

    def _enter(self, assignment: Assignment, arrived_ms: int) -> int:
        experiment, variation, source, _, is_certain = assignment
        sender = self._sender(source)
        parts = experiment, is_certain, variation, sender, arrived_ms // HOUR_MS
        number = self._cells.get(parts)
        if number is None:
            number = self._cells[parts] = len(self._decided)
            self._variations.append(variation)
            self._text_bytes += sum(map(getsizeof, filter(None, (*experiment, variation, *sender))))
            self._decided.append(0)
            self._delivered.append(0)
        self._decided[number] += 1
        return number

    def _sender(self, source: Source | None) -> Sender:
        last, sender = self._last_sender
        if source is not last:
            sender = _sender_of(source)
            self._last_sender = source, sender
        return sender

    def by_experiment(self) -> dict[Experiment, Tallies]:
        """The counts by experiment."""
        found: dict[Experiment, Tallies] = {}
        for parts, number in self._cells.items():
            cell = Cell(*parts)
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
    """Test every experiment that has at least two variations to compare.

    Args:
        samples: the visitors.
        published: the splits from datafiles.
        given: the caller's splits, by flag; they take precedence, and only the variations that they name are
        compared.
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
    """The visitors of the hours after a moment."""
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
    """The least p-value of the tests after each hour, and the end of the hour in which it first was too small."""
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
    """The services, and the SDKs, that are off by themselves, if there are several."""
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
