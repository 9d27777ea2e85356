"""Random traffic: which visitor decides what, when, spread over partitions by Kafka's own partitioner.

In: a load. Out: each partition's share of it, and its decisions in the order of their arrival. The hottest visitors
have names that are really hashed; of the many others a partition gets every n-th, which is the result of a hash on
average.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import NamedTuple
from zlib import crc32

from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import DecisionEvent

HASHED_VISITORS = 100_000
"""This many of the hottest visitors are put on the partition of their names."""
STRATA = 256
"""The other visitors are divided into this many strata for sums over all of them."""
VARIATIONS = ("control", "treatment")


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the application."""

    decisions_per_second: float
    visitors: int
    skew: float
    """The exponent of Zipf's law; 0: all visitors decide equally often."""
    flags: int
    partitions: int
    backlog: int = 0
    """Decisions that wait when the plan begins."""

    @property
    def backlog_seconds(self) -> float:
        """The time over which the backlog arrived; if nothing arrives any more, a second."""
        if not self.backlog:
            return 0.0
        return self.backlog / self.decisions_per_second if self.decisions_per_second else 1.0


class Group(NamedTuple):
    """Visitors who decide about equally often."""

    visitors: float
    share: float
    """The part of all decisions that one of them makes."""


class Drawn(NamedTuple):
    """A drawn visitor."""

    name: str
    share: float
    """The part of all decisions that this visitor makes."""


def _name(rank: int) -> str:
    """The name of one of the hottest visitors; the hottest has rank 1."""
    return f"visitor-{rank:09d}"


@lru_cache(maxsize=4)
def _hashed(count: int, partitions: int) -> Sequence[int]:
    """The partition of each of the hottest visitors, in their order. A plan and its trials ask again and again."""
    return array("i", (partition_of(_name(rank).encode(), partitions) for rank in range(1, count + 1)))


class Visitors:
    """All visitors of a load, by partition."""

    def __init__(self, load: Load) -> None:
        self._skew = load.skew
        self._partitions = load.partitions
        hashed = min(load.visitors, HASHED_VISITORS)
        self._begin, self._end = hashed + 0.5, load.visitors + 0.5
        """The ranks of the others, as an interval."""
        self._rest = self._between(self._begin, self._end) if load.visitors > hashed else 0.0
        weights = [math.pow(rank, -load.skew) for rank in range(1, hashed + 1)]
        self._total = sum(weights) + self._rest
        self._hottest: list[list[tuple[str, float]]] = [[] for _ in range(load.partitions)]
        numbers = _hashed(hashed, load.partitions)
        for rank, (number, weight) in enumerate(zip(numbers, weights, strict=True), start=1):
            self._hottest[number].append((_name(rank), weight / self._total))
        self.hottest_partition = numbers[0]
        self.hottest_share = weights[0] / self._total

    def share(self, partition: int) -> float:
        """The part of all decisions that a partition gets."""
        return sum(share for _, share in self._hottest[partition]) + self._rest_share

    def groups(self, partition: int) -> Iterator[Group]:
        """A partition's visitors: the hottest one by one, the others in strata."""
        for _, share in self._hottest[partition]:
            yield Group(1.0, share)
        if not self._rest:
            return
        step = math.log(self._end / self._begin) / STRATA
        for number in range(STRATA):
            low, high = self._begin * math.exp(number * step), self._begin * math.exp((number + 1) * step)
            weight = self._between(low, high) / (high - low)
            yield Group((high - low) / self._partitions, weight / self._total)

    def drawing(self, partition: int, random: Random) -> Iterator[Drawn]:
        """Draw visitors of one partition without end, each as often as it decides."""
        hottest = self._hottest[partition]
        cumulated = list(accumulate(share for _, share in hottest))
        of_hottest = cumulated[-1] if cumulated else 0.0
        everything = of_hottest + self._rest_share
        while True:
            place = random.random() * everything
            if place < of_hottest:
                yield Drawn(*hottest[bisect_left(cumulated, place)])
            else:
                rank = self._rank(random.random())
                number = int((rank - self._begin) / self._partitions)
                yield Drawn(f"visitor-{partition}-{number:09d}", math.pow(rank, -self._skew) / self._total)

    @property
    def _rest_share(self) -> float:
        """A partition's share of the visitors that are not hashed."""
        return self._rest / self._total / self._partitions

    def _between(self, low: float, high: float) -> float:
        """The weight of the ranks between two, by the integral."""
        if abs(self._skew - 1.0) < 1e-9:
            return math.log(high / low)
        power = 1.0 - self._skew
        return (math.pow(high, power) - math.pow(low, power)) / power

    def _rank(self, part: float) -> float:
        """The rank below which this part of the others' weight lies."""
        if abs(self._skew - 1.0) < 1e-9:
            return self._begin * math.pow(self._end / self._begin, part)
        power = 1.0 - self._skew
        low, high = math.pow(self._begin, power), math.pow(self._end, power)
        return math.pow(low + part * (high - low), 1.0 / power)


class Choice(NamedTuple):
    """One decision, before it is made into an event."""

    at: float
    """Seconds; the plan begins at 0."""
    visitor: Drawn
    flag: int


class Before(NamedTuple):
    """Decisions of a partition before the plan begins."""

    sent: list[DecisionEvent]
    """The last one of each visitor and flag that was sent."""
    made: list[DecisionEvent]
    """The last one of each visitor and flag, sent or a duplicate."""


class Decisions:
    """The decisions of one partition in the order of their arrival."""

    def __init__(self, load: Load, visitors: Visitors, partition: int, *, seed: int, start_ms: int) -> None:
        """`start_ms`: the moment 0, in epoch ms."""
        self.partition = partition
        self._load = load
        self._visitors = visitors
        self._seed = seed
        self._start_ms = start_ms
        share = visitors.share(partition)
        self.per_second = load.decisions_per_second * share
        self.backlog = round(load.backlog * share)
        self.read = 0
        """How many have been taken."""
        self._choices = self._choose()
        self._next = next(self._choices, None)

    @property
    def next_at(self) -> float:
        """When the next one arrives; infinite if none does."""
        return math.inf if self._next is None else self._next.at

    def arrived(self, now: float) -> float:
        """How many have arrived by now: those that were read, and the expected number of the others."""
        if self.next_at > now:
            return float(self.read)
        return max(float(self.read), self.backlog + self.per_second * max(0.0, now))

    def take(self) -> DecisionEvent:
        """Return the next one."""
        choice = self._next
        if choice is None:
            raise LookupError("no decision comes any more")
        self._next = next(self._choices, None)
        event = self.event(choice, self.read)
        self.read += 1
        return event

    def event(self, choice: Choice, number: int) -> DecisionEvent:
        """A decision as the publisher would make it."""
        name, flag = choice.visitor.name, choice.flag
        return DecisionEvent(
            event_id=f"0192f5a0-0000-7000-{self.partition:04x}-{number:012d}",
            occurred_at=self._start_ms + int(choice.at * 1000),
            visitor_id=name,
            flag_key=f"flag_{flag}",
            enabled=True,
            variation_key=VARIATIONS[crc32(f"{name}/{flag}".encode()) & 1],
            rule_key="experiment",
            decision_event_dispatched=True,
        )

    def before(self, until: float, ttl_seconds: float) -> Before:
        """The decisions of the last ttl before the plan that may have duplicates among the decisions up to a moment.

        A visitor decides about a flag at random, `rate` times a second, so the time since its last decision is
        exponentially distributed. For sent decisions another rule applies: each makes the decisions of the next ttl
        duplicates, and the next one after these is sent, after 1 / rate on average. So at any moment one was sent
        within the last ttl with the probability rate * ttl / (1 + rate * ttl), and it may be of any
        age.
        """
        random = Random(f"{self._seed}/{self.partition}/before")  # noqa: S311 - no secret
        begin = -self._load.backlog_seconds
        found = Before([], [])
        known: set[tuple[str, int]] = set()
        for choice in self._choose():
            if choice.at > until:
                break
            key = choice.visitor.name, choice.flag
            if key in known:
                continue
            known.add(key)
            rate = self._load.decisions_per_second * choice.visitor.share / self._load.flags
            if random.random() * (1.0 + rate * ttl_seconds) < rate * ttl_seconds:
                found.sent.append(self._earlier(choice, begin - random.random() * ttl_seconds, len(known)))
            if rate and (ago := random.expovariate(rate)) < ttl_seconds:
                found.made.append(self._earlier(choice, begin - ago, len(known)))
        return found

    def _earlier(self, choice: Choice, at: float, number: int) -> DecisionEvent:
        return self.event(choice._replace(at=at), -number)

    def _choose(self) -> Iterator[Choice]:
        """Draw all of them; the result does not depend on which other partitions are used."""
        random = Random(f"{self._seed}/{self.partition}")  # noqa: S311 - no secret
        drawing = self._visitors.drawing(self.partition, random)
        for at in self._moments(random):
            yield Choice(at, next(drawing), int(random.random() * self._load.flags))

    def _moments(self, random: Random) -> Iterator[float]:
        seconds = self._load.backlog_seconds
        for number in range(1, self.backlog + 1):
            yield -seconds + number * seconds / self.backlog
        at = 0.0
        while self.per_second:
            at -= math.log1p(-random.random()) / self.per_second
            yield at
