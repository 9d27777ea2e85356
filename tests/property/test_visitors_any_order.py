"""The counts of visitors, whatever the order of the facts, are compared with those of a naive model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.commands.reconcile.visitors import Visitors, standing_of
from flagpost_consumer.core.outcomes import STANDINGS, Kind, Outcome, Reason
from flagpost_schemas import LedgerEntry

GROUPS = st.sampled_from([("checkout", "treatment"), ("checkout", "control"), ("search", None)])
ENDINGS = st.sampled_from([(reason.outcome.value, reason.value) for reason in Reason])
KINDS = st.sampled_from([Kind.TRACK, Kind.VISITOR_METADATA, Kind.UNKNOWN])
Group = tuple[str, str | None]
Settlement = tuple[int, Kind, str, str, int | None]


@dataclass
class Story:
    """The history of one partition."""

    published: dict[int, tuple[Group, str]] = field(default_factory=dict)
    settled: list[Settlement] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)

    def told(self, order: Callable[[list[Callable[[Visitors[Group]], None]]], None]) -> Visitors[Group]:
        """Tell a `Visitors` everything in an order, with the commits in their own order; returns it."""
        facts: list[Callable[[Visitors[Group]], None]] = []
        for offset, (group, visitor) in self.published.items():
            facts.append(lambda v, o=offset, g=group, i=visitor: v.publish(7, o, g, i))  # type: ignore[misc]
        for offset, kind, outcome, reason, original in self.settled:
            entry = LedgerEntry(offset, kind, outcome, reason, duplicate_of=original)
            facts.append(lambda v, e=entry: v.settle(7, [e]))  # type: ignore[misc]
        for first, end in self.gaps:
            facts.append(lambda v, f=first, e=end: v.lose(7, f, e))  # type: ignore[misc]
        facts.extend([lambda _: None] * len(self.commits))
        order(facts)
        visitors: Visitors[Group] = Visitors()
        commits = list(self.commits)
        for number, fact in enumerate(facts):
            fact(visitors)
            if number % 3 == 0 and commits:
                visitors.commit(7, commits.pop(0))
        for commit in commits:
            visitors.commit(7, commit)
        return visitors

    def modelled(self) -> dict[Group, Counter[str]]:
        """The number of visitors of each group by standing; everything is looked through for every event."""
        stands: dict[tuple[Group, str], int] = {}
        for offset, who in self.published.items():
            stands[who] = max(stands.get(who, -1), self._standing(offset))
        counts: dict[Group, Counter[str]] = {}
        for (group, _), rank in stands.items():
            counts.setdefault(group, Counter())[STANDINGS[rank]] += 1
        return counts

    def _standing(self, offset: int) -> int:
        said = self._said(offset)
        originals = [o for at, kind, _, reason, o in self.settled
                     if at == offset and kind in (Kind.TRACK, Kind.UNKNOWN) and reason == "dedupe"]  # fmt: skip
        original = next((o for o in originals if o is not None), None)
        if original is not None:
            said += self._said(original)
            lost = original in self.published and self._lost(original)
            if not (lost or self._said(original)) and original >= self.commits[-1]:
                said.append(STANDINGS.index("pending"))
        if not said and self._lost(offset):
            return STANDINGS.index("offset_lost")
        missing = "unexplained" if offset < self.commits[-1] else "pending"
        return max(said, default=STANDINGS.index(missing))

    def _lost(self, offset: int) -> bool:
        return any(first <= offset < end for first, end in self.gaps)

    def _said(self, offset: int) -> list[int]:
        return [
            STANDINGS.index(standing_of(outcome, reason))
            for at, kind, outcome, reason, _ in self.settled
            if at == offset and kind is not Kind.VISITOR_METADATA
        ]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Offsets have holes; a record is settled never, once, or repeatedly; duplicates name an earlier offset."""
    story = Story()
    offset = draw(st.integers(4090, 4100))  # a page of offsets ends at 4096
    first = offset
    for _ in range(draw(st.integers(1, 14))):
        offset += draw(st.integers(1, 3))
        story.published[offset] = draw(GROUPS), draw(st.sampled_from("uvw"))
    repeated = draw(st.dictionaries(st.integers(first, offset), st.integers(1, 8), max_size=8))
    for _ in range(draw(st.integers(0, 20))):
        at = draw(st.integers(first - 8, offset))
        outcome, reason = draw(ENDINGS)
        original = at - repeated[at] if reason == "dedupe" and at in repeated else None
        if original is not None and any(o == original and r == "dedupe" for o, _, _, r, _ in story.settled):
            original = None  # a claim is never a duplicate itself
        story.settled.append((at, draw(KINDS), outcome, reason, original))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(first, offset))
        story.gaps.append((start, start + draw(st.integers(1, 3))))
    story.commits = [
        *draw(st.lists(st.integers(first, offset + 2), max_size=3)),
        draw(st.integers(0, offset + 2)),
    ]
    return story


@given(stories(), st.randoms(use_true_random=False))
def test_visitors_have_the_states_of_the_naive_model_in_any_order(story: Story, random: object) -> None:
    visitors = story.told(random.shuffle)  # type: ignore[attr-defined]
    counted = visitors.counts()
    expected = story.modelled()
    assert {
        group: {**counts.by_reason, **({"ok": counts.delivered} if counts.delivered else {})}
        for group, counts in counted.items()
    } == expected


@given(stories(), st.randoms(use_true_random=False))
def test_the_reasons_add_up_to_the_difference(story: Story, random: object) -> None:
    for group, counts in story.told(random.shuffle).counts().items():  # type: ignore[attr-defined]
        decided = {visitor for each, visitor in story.published.values() if each == group}
        assert (counts.decided, counts.lost) == (len(decided), sum(counts.by_reason.values()))


def test_every_reason_of_the_ledger_has_a_standing() -> None:
    assert set(Reason) <= set(STANDINGS)
    assert len(set(STANDINGS)) == len(STANDINGS) < 255
    assert [standing_of(reason.outcome.value, reason.value) for reason in Reason] == [*Reason]
    assert {standing_of(outcome.value, "later") for outcome in Outcome} == {"ok", "unknown"}
