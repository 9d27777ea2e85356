"""Which dead letters are replayed, which are skipped, and why.

In: candidates, what was delivered, a limit. Out: a `Selection`. The oldest go first, so that a visitor's events keep
their order; skipped ones do not count towards the limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from flagpost_consumer.commands.dead_letters.assessing import Candidate, Part, Skip
from flagpost_consumer.commands.dead_letters.delivered import Claims
from flagpost_consumer.commands.dead_letters.records import DeadLetter, Place


@dataclass(frozen=True, slots=True)
class Chosen:
    """A dead letter to replay."""

    letter: DeadLetter
    kind: str
    """The deliveries to plan: the dead letter's kind, or only a part of it if the other would be a duplicate."""


@dataclass(slots=True)
class Selection:
    """The decision about each dead letter."""

    replays: dict[Place, Chosen] = field(default_factory=dict)
    skipped: dict[Skip, list[Place]] = field(default_factory=lambda: defaultdict(list))

    @property
    def skips(self) -> int:
        """How many are skipped."""
        return sum(map(len, self.skipped.values()))

    def skip(self, place: Place, why: Skip) -> None:
        """Skip a dead letter."""
        self.replays.pop(place, None)
        self.skipped[why].append(place)


def oldest_first(letter: DeadLetter) -> tuple[int, Place]:
    """The key by which dead letters are sorted."""
    return letter.at, letter.place


def select(candidates: Iterable[Candidate], delivered: Claims, taken: Claims, limit: int | None) -> Selection:
    """Go through the candidates until `limit` are chosen; `taken` starts empty."""
    selection = Selection()
    for candidate in sorted(candidates, key=lambda each: oldest_first(each.letter)):
        if limit is not None and len(selection.replays) >= limit:
            break
        _decide(candidate, selection, delivered, taken)
    return selection


def _decide(candidate: Candidate, selection: Selection, delivered: Claims, taken: Claims) -> None:
    skips = [_skip(part, delivered, taken) for part in candidate.parts]
    left = [part for part, skip in zip(candidate.parts, skips, strict=True) if skip is None]
    place = candidate.letter.place
    if not left:
        selection.skip(place, candidate.skip or next(filter(None, skips)))
        return
    for part in left:
        if part.claim is not None:
            taken.add(part.claim)
    # If one of two deliveries would be a duplicate, only the other is planned.
    whole = len(left) == len(candidate.parts)
    selection.replays[place] = Chosen(candidate.letter, candidate.letter.kind if whole else left[0].kind)


def _skip(part: Part, delivered: Claims, taken: Claims) -> Skip | None:
    if part.expired:
        return Skip.EXPIRED
    if part.claim is None:
        return None
    if delivered.hold(part.claim):
        return Skip.DELIVERED
    return Skip.REPEATED if taken.hold(part.claim) else None
