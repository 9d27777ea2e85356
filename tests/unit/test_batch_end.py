"""The search for the end of a batch that Kafka's client cannot read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.adapters.kafka.batch_end import BatchEnd

MOST_PLACES = 60


@given(
    base=st.integers(0, 2**40),
    size=st.one_of(st.integers(1, 10), st.integers(1, 2**20)),
    behind=st.one_of(st.integers(0, 3), st.integers(0, 2**30)),
    unreadable_behind=st.integers(0, 5),
)
def test_the_end_is_found_exactly_and_soon(base: int, size: int, behind: int, unreadable_behind: int) -> None:
    """After the batch there may be another one that cannot be read, or nothing."""
    end, log_end = base + size, base + size + behind
    search = BatchEnd(base, log_end)
    places = 0
    while (found := search.found) is None:
        place = search.place
        places += 1
        assert places < MOST_PLACES
        assert base < place <= log_end
        if place < end:
            search.unreadable(base)
        elif place < min(end + unreadable_behind, log_end):
            search.unreadable(end)
        else:
            search.readable()
    assert found == end
