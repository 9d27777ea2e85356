"""Which dead letters are replayed: never a duplicate, and all that may be."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.commands.dead_letters.assessing import Candidate, Claim, Part, Skip
from flagpost_consumer.commands.dead_letters.delivered import Claims
from flagpost_consumer.commands.dead_letters.records import DeadLetter, Place
from flagpost_consumer.commands.dead_letters.selecting import Selection, select

TTL_SECONDS = 1.0
TTL_MS = 1_000

claims = st.builds(Claim, st.sampled_from([b"k" * 16, b"l" * 16]), st.integers(0, 5_000))
tracks = st.builds(Part, st.just("track"), claims, st.just(value=False))
expired = st.just(Part("track", expired=True))
metadata = st.just(Part("visitor_metadata"))
parts = st.one_of(
    st.tuples(tracks),
    st.tuples(expired),
    st.tuples(metadata),
    st.tuples(st.one_of(tracks, expired), metadata),
)


def candidate(number: int, given_parts: tuple[Part, ...], at: int = 0, skip: Skip | None = None) -> Candidate:
    letter = DeadLetter(
        place=Place(0, number),
        key=b"v",
        at=at,
        reason="rejected",
        detail="",
        kind=given_parts[0].kind if len(given_parts) == 1 else "unknown",
        source="events/0/1",
        attempts=1,
        status=None,
        truncated=False,
    )
    return Candidate(letter, given_parts, skip)


def choose(candidates: list[Candidate], delivered: list[Claim], limit: int | None = None) -> Selection:
    known = Claims(TTL_SECONDS)
    for claim in delivered:
        known.add(claim)
    return select(candidates, known, Claims(TTL_SECONDS), limit)


def repeat(one: Claim, other: Claim) -> bool:
    return one.key == other.key and abs(one.occurred_at - other.occurred_at) < TTL_MS


def sent(candidates: list[Candidate], selection: Selection) -> dict[Place, Claim]:
    """The claims of the tracks that will be planned."""
    return {
        each.letter.place: part.claim
        for each in candidates
        for part in each.parts
        if each.letter.place in selection.replays
        and part.claim is not None
        and selection.replays[each.letter.place].kind in (part.kind, "unknown")
    }


@given(st.lists(parts, max_size=8), st.lists(claims, max_size=3), st.none() | st.integers(1, 4))
def test_no_chosen_letter_is_a_duplicate_of_a_delivered_or_another_chosen_one(
    given_parts: list[tuple[Part, ...]], delivered: list[Claim], limit: int | None
) -> None:
    candidates = [candidate(number, each) for number, each in enumerate(given_parts)]
    selection = choose(candidates, delivered, limit)
    going = sent(candidates, selection)
    assert not any(repeat(claim, other) for claim in going.values() for other in delivered)
    assert not any(repeat(one, other) for one, other in combinations(going.values(), 2))
    assert limit is None or len(selection.replays) <= limit


@given(st.lists(parts, max_size=8), st.lists(claims, max_size=3))
def test_without_a_limit_each_is_chosen_or_skipped_for_a_reason_that_holds(
    given_parts: list[tuple[Part, ...]], delivered: list[Claim]
) -> None:
    candidates = [candidate(number, each) for number, each in enumerate(given_parts)]
    selection = choose(candidates, delivered)
    reasons = {place: why for why, places in selection.skipped.items() for place in places}
    assert len(reasons) == selection.skips
    assert {*reasons, *selection.replays} == {each.letter.place for each in candidates}
    assert not {*reasons} & {*selection.replays}
    going = sent(candidates, selection)
    for each in candidates:
        why = reasons.get(each.letter.place)
        if why is None:
            continue
        (part,) = each.parts
        assert part.expired == (why is Skip.EXPIRED)
        if part.claim is not None:
            assert (why is Skip.DELIVERED) == any(repeat(part.claim, other) for other in delivered)
            assert why is Skip.DELIVERED or any(repeat(part.claim, other) for other in going.values())


def test_the_oldest_dead_letter_is_chosen_first() -> None:
    key = b"k" * 16
    young = candidate(1, (Part("track", Claim(key, 0)),), at=20)
    old = candidate(2, (Part("track", Claim(key, 500)),), at=10)
    selection = choose([young, old], [])
    assert list(selection.replays) == [Place(0, 2)]
    assert dict(selection.skipped) == {Skip.REPEATED: [Place(0, 1)]}


def test_of_two_deliveries_only_the_one_that_is_not_a_duplicate_is_planned() -> None:
    claim = Claim(b"k" * 16, 0)
    both = candidate(1, (Part("track", claim), Part("visitor_metadata")))
    assert choose([both], [claim]).replays[Place(0, 1)].kind == "visitor_metadata"
    assert choose([both], []).replays[Place(0, 1)].kind == "unknown"


def test_a_letter_that_cannot_be_replayed_does_not_use_up_the_limit() -> None:
    lost = candidate(1, (Part("track"),), at=1)
    truncated = Candidate(lost.letter, skip=Skip.TRUNCATED)
    good = [candidate(number, (Part("track"),), at=number) for number in (2, 3)]
    selection = choose([truncated, *good], [], limit=1)
    assert (list(selection.replays), dict(selection.skipped)) == (
        [Place(0, 2)],
        {Skip.TRUNCATED: [Place(0, 1)]},
    )
