"""Which schema ids to ask the registry for, when, and what its answers mean.

In: the ids that partitions wait for, the registry's answers, the time. Out: the id to ask for now, the moment at
which to look again, and what became of an id. It awaits nothing and reads no clock.

An answer about one id affects only that id. A refused id is asked for again during `unknown_seconds` and is then
unknown; that is forgotten after ten times as long. A registry that does not answer is waited for without end. Ids of
waiting partitions come first, in the order in which they became due. Ids further back in the held records are asked
for once, with the capacity that is left, so that their time begins early. So a flood of unknown ids delays no schema
that a partition waits for, and does not take a minute for each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from flagpost_consumer.core.backoff import doubled
from flagpost_consumer.core.clock import Instant

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
FORGOTTEN_AFTER = 10
"""An unknown id is not asked for again for this many times `unknown_seconds`."""
MAX_ASKED_AT_ONCE = 8
MAX_AHEAD_AT_ONCE = 4
"""Of these, ids that no partition's first record needs."""
REQUESTS_PER_SECOND = 50.0
MAX_UNKNOWN_IDS = 10_000
"""Unknown ids that are remembered; the oldest are forgotten first. More than the records held, or one would wait
twice.
"""
NOT_ASKED_YET = "not asked yet"


@dataclass(frozen=True, slots=True)
class Found:
    """The registry has the schema."""

    text: str
    """Its JSON."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The registry answered that it does not return this schema: it may not have it yet, or we may lack the right."""

    why: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """The registry has the schema, but no record can be read with it: asking again changes nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The registry did not answer, or its answer says nothing about the id."""

    why: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The registry rejected the request for a reason of the client or of the moment: a wrong password, or too many
    requests. If it returns other schemas meanwhile, it counts as a refusal of this one.
    """

    why: str


SchemaAnswer: TypeAlias = Found | Refused | Unusable | NoAnswer | TurnedAway


@dataclass(frozen=True, slots=True)
class Unknown:
    """The registry has refused an id for long enough."""

    why: str


@dataclass(frozen=True, slots=True)
class RegistryWait:
    """A partition that waits for the registry."""

    partition: int
    schema_id: int
    since_ms: int
    """Epoch ms."""
    last_answer: str


@dataclass(slots=True)
class _Lookup:
    """One id, for as long as a held record needs it."""

    records: int = 0
    due_at: float = -inf
    """When a partition that waits for it may ask for it."""
    unknown_at: float | None = None
    """If it is refused at or after this moment, it is unknown; on the clock of `SchemaLookups._answering`."""
    refusals: int = 0
    failures: int = 0
    """Requests in a row without an answer."""
    is_alone: bool = False
    """Whether the registry answered about other ids but not about this one."""
    last_answer: str = NOT_ASKED_YET


@dataclass(frozen=True, slots=True)
class _Head:
    """The first record that a partition holds, as far as the registry matters to it."""

    schema_id: int
    since: Instant


class SchemaLookups:
    """The ids that one process waits for."""

    def __init__(self, unknown_seconds: float) -> None:
        self._unknown_seconds = unknown_seconds
        self._lookups: dict[int, _Lookup] = {}
        self._heads: dict[int, _Head] = {}
        self._fresh: OrderedDict[int, None] = OrderedDict()
        """Ids that have not been asked for yet, in the order of their records."""
        self._asked: set[int] = set()
        """Ids that were asked for and have no answer yet."""
        self._next_request_at = -inf
        self._silent: set[int] = set()
        """Ids about which the registry has not answered since it last answered about any."""
        self._silent_until = -inf
        self._silent_since: float | None = None
        self._silent_seconds = 0.0
        """How long the registry has been silent in all, until `_silent_since`."""
        self._unknown: OrderedDict[int, float] = OrderedDict()
        """When unknown ids are forgotten, the earliest first."""

    # What is needed

    def hold(self, schema_id: int) -> None:
        """A held record needs this id."""
        lookup = self._lookups.get(schema_id)
        if lookup is None:
            lookup = self._lookups[schema_id] = _Lookup()
            self._fresh[schema_id] = None
        lookup.records += 1

    def let_go(self, schema_id: int) -> None:
        """A record that needs this id is no longer held."""
        lookup = self._lookups[schema_id]
        lookup.records -= 1
        if not lookup.records:
            del self._lookups[schema_id]
            self._fresh.pop(schema_id, None)
            self._silent.discard(schema_id)

    def wait(self, partition: int, schema_id: int, now: Instant) -> None:
        """The first record that a partition holds needs this id (`hold` has been called for it)."""
        self._heads[partition] = _Head(schema_id, now)

    def go_on(self, partition: int) -> None:
        """A partition no longer waits."""
        self._heads.pop(partition, None)

    @property
    def waiting_partitions(self) -> frozenset[int]:
        """The partitions that wait."""
        return frozenset(self._heads)

    def waiting_for(self, schema_id: int) -> list[int]:
        """The partitions that wait for an id."""
        return [partition for partition, head in self._heads.items() if head.schema_id == schema_id]

    def waits(self) -> list[RegistryWait]:
        """Who waits, for what, since when, and what the registry said last."""
        return [
            RegistryWait(n, head.schema_id, head.since.wall_ms, self._lookups[head.schema_id].last_answer)
            for n, head in sorted(self._heads.items())
        ]

    # What is asked

    def next(self, now: Instant) -> int | None:
        """The id to ask for now; None: none."""
        if now.monotonic < self._next_request_at or len(self._asked) >= MAX_ASKED_AT_ONCE:
            return None
        schema_id = self._due(now.monotonic)
        if schema_id is not None:
            self._next_request_at = now.monotonic + 1 / REQUESTS_PER_SECOND
            self._asked.add(schema_id)
            self._fresh.pop(schema_id, None)
        return schema_id

    def wake_at(self) -> float | None:
        """The monotonic second from which `next` may return an id; None: only after an answer or another record."""
        if len(self._asked) >= MAX_ASKED_AT_ONCE or (self._is_silent and self._asked):
            return None
        moments = [due_at for due_at, _ in self._due_heads()]
        if self._is_silent:
            moments = [max(due_at, self._silent_until) for due_at in moments]
        elif self._fresh and len(self._asked) < MAX_AHEAD_AT_ONCE:
            moments.append(-inf)
        return max(min(moments), self._next_request_at) if moments else None

    def _due(self, now: float) -> int | None:
        is_silent = self._is_silent
        if is_silent and (self._asked or now < self._silent_until):
            return None
        due_at, schema_id = min(self._due_heads(), default=(inf, 0))
        if due_at <= now:
            return schema_id
        if is_silent or len(self._asked) >= MAX_AHEAD_AT_ONCE:
            return None
        return next(iter(self._fresh), None)

    def _due_heads(self) -> Iterator[tuple[float, int]]:
        """The ids that partitions wait for and that are not asked for now, each with when it is due."""
        for head in self._heads.values():
            if head.schema_id not in self._asked:
                due_at = self._lookups[head.schema_id].due_at
                yield max(due_at, head.since.monotonic), head.schema_id

    # What the registry says

    def answered(self, schema_id: int, answer: SchemaAnswer, now: Instant) -> Found | Unknown | None:
        """Handle an answer; returns what became of the id, or None if it is asked for again."""
        self._asked.discard(schema_id)
        lookup = self._lookups.get(schema_id)
        if lookup is not None and not isinstance(answer, Found):
            lookup.last_answer = answer.why
        if isinstance(answer, TurnedAway):
            answer = _meaning(answer, lookup)
        if isinstance(answer, NoAnswer):
            if lookup is not None:
                self._not_answered(schema_id, lookup, now.monotonic)
            return None
        self._has_answered(now.monotonic)
        if isinstance(answer, Found):
            return answer
        if isinstance(answer, Unusable):
            return self._refuse(schema_id, answer.why, now)
        return None if lookup is None else self._was_refused(schema_id, lookup, answer, now)

    def refuse(self, schema_id: int, now: Instant) -> None:
        """An id is unknown from now on, until `forgotten` returns it."""
        self._unknown.pop(schema_id, None)
        self._unknown[schema_id] = now.monotonic + FORGOTTEN_AFTER * self._unknown_seconds

    def forgotten(self, now: Instant) -> list[int]:
        """Unknown ids that may be asked for again; each is returned once."""
        ids = []
        while self._unknown:
            schema_id, until = next(iter(self._unknown.items()))
            if until > now.monotonic and len(self._unknown) <= MAX_UNKNOWN_IDS:
                break
            del self._unknown[schema_id]
            ids.append(schema_id)
        return ids

    def _was_refused(self, schema_id: int, lookup: _Lookup, answer: Refused, now: Instant) -> Unknown | None:
        answering = self._answering(now.monotonic)
        if lookup.unknown_at is None:
            lookup.unknown_at = answering + self._unknown_seconds
        if answering >= lookup.unknown_at:
            why = f"{answer.why}, for {self._unknown_seconds:g} s"
            return self._refuse(schema_id, why, now)
        lookup.refusals += 1
        lookup.failures = 0
        lookup.is_alone = False
        last_try_at = now.monotonic + lookup.unknown_at - answering
        lookup.due_at = min(now.monotonic + _wait_seconds(lookup.refusals), last_try_at)
        return None

    def _refuse(self, schema_id: int, why: str, now: Instant) -> Unknown:
        self.refuse(schema_id, now)
        again = FORGOTTEN_AFTER * self._unknown_seconds
        return Unknown(f"{why}; Flagpost asks for it again after {again:g} s")

    # A registry that is silent

    @property
    def _is_silent(self) -> bool:
        """Whether the registry does not answer at all, and not only about one id."""
        return len(self._silent) > 1 or any(not self._lookups[each].is_alone for each in self._silent)

    def _answering(self, now: float) -> float:
        """A clock that stands still while the registry is silent: an id that could not be asked for was not refused
        in that time. Read it once the registry answers again.
        """
        return now - self._silent_seconds

    def _not_answered(self, schema_id: int, lookup: _Lookup, now: float) -> None:
        lookup.failures += 1
        lookup.due_at = now + _wait_seconds(lookup.failures)
        self._silent.add(schema_id)
        self._silent_until = now + _wait_seconds(len(self._silent))
        if self._silent_since is None and self._is_silent:
            self._silent_since = now

    def _has_answered(self, now: float) -> None:
        for schema_id in self._silent:
            lookup = self._lookups[schema_id]
            lookup.is_alone = True
            lookup.due_at = min(lookup.due_at, now + FIRST_WAIT_SECONDS)
        self._silent.clear()
        if self._silent_since is not None:
            self._silent_seconds += now - self._silent_since
            self._silent_since = None


def _meaning(answer: TurnedAway, lookup: _Lookup | None) -> Refused | NoAnswer:
    """Whether an answer is about the id: it was refused before, or others were answered meanwhile."""
    is_about_id = lookup is not None and (lookup.is_alone or lookup.unknown_at is not None)
    return Refused(answer.why) if is_about_id else NoAnswer(answer.why)


def _wait_seconds(times: int) -> float:
    """How long to wait after this many failures: twice as long each time."""
    return doubled(FIRST_WAIT_SECONDS, times - 1, LONGEST_WAIT_SECONDS)
