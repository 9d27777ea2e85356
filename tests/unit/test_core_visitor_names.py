"""The names under which visitors are remembered: with and without Pendo's prefix, and of any length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.planning.visitor_names import (
    ANONYMOUS_PREFIX,
    LONG_ID_CHARACTERS,
    anonymous_name,
    both_names,
    name_of_lane,
    other_name,
)

IDS = st.one_of(
    st.text(min_size=1, max_size=20),
    st.integers(-3, 3).map(lambda more: "x" * (LONG_ID_CHARACTERS + more)),
    st.integers(-3, 3).map(lambda more: ANONYMOUS_PREFIX + "x" * (LONG_ID_CHARACTERS + more)),
)


@given(IDS)
def test_the_other_name_of_a_visitors_other_name_is_the_first(visitor_id: str) -> None:
    first, second = both_names(visitor_id)
    assert (first, other_name(second)) == (visitor_id, visitor_id)
    bare = visitor_id.removeprefix(ANONYMOUS_PREFIX)
    assert {first, second} == {bare, ANONYMOUS_PREFIX + bare}


@given(IDS)
def test_both_names_of_a_visitor_are_the_same_but_for_the_prefix_when_they_are_cut(visitor_id: str) -> None:
    named = name_of_lane(visitor_id)
    assert name_of_lane(other_name(visitor_id)) == other_name(named)
    assert len(named) <= LONG_ID_CHARACTERS + len(ANONYMOUS_PREFIX)
    assert name_of_lane(named) == named


def test_a_short_id_is_its_own_name_and_long_ids_have_different_names() -> None:
    longest = "x" * LONG_ID_CHARACTERS
    for visitor_id in ("v", longest, ANONYMOUS_PREFIX + longest):
        assert name_of_lane(visitor_id) == visitor_id
    names = {name_of_lane(longest + more) for more in ("a", "b", "aa")}
    assert len(names) == 3
    assert all(name.startswith("long id ") for name in names)
    assert name_of_lane(ANONYMOUS_PREFIX + longest + "a") == ANONYMOUS_PREFIX + name_of_lane(longest + "a")


def test_an_anonymous_visitor_has_pendo_s_prefix_once() -> None:
    assert anonymous_name("a") == anonymous_name(ANONYMOUS_PREFIX + "a") == ANONYMOUS_PREFIX + "a"
    assert anonymous_name("") is None
    assert anonymous_name(ANONYMOUS_PREFIX) is None
