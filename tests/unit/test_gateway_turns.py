"""Turns are fair: each other sender makes a sender wait for at most about as long as it is served itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadlines import stretched
from flagpost_publisher.gateway.slices import SHORT_BYTES, Slices
from flagpost_publisher.gateway.turns import MAX_REMEMBERED, Turns

SECONDS = st.sampled_from([0.001, 0.005, 0.02])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def ends(jobs: Mapping[str, list[float]], slice_seconds: float) -> dict[str, list[float]]:
    """Request all jobs at once, in the order of the map; returns when each sender's jobs end, in seconds."""
    turns, clock = Turns(slice_seconds), Clock()
    ended: dict[str, list[float]] = {sender: [] for sender in jobs}

    async def serve(sender: str, seconds: float) -> None:
        await turns.take(sender)
        clock.now += seconds
        turns.give(sender, seconds)
        ended[sender].append(clock.now)

    async with asyncio.timeout(stretched(30)), asyncio.TaskGroup() as group:
        for sender, all_seconds in jobs.items():
            for seconds in all_seconds:
                group.create_task(serve(sender, seconds))
    return ended


async def test_a_flood_of_one_sender_at_most_doubles_the_time_of_another() -> None:
    ended = await ends({"greedy": [0.005] * 1_000, "modest": [0.005] * 10}, 0.005)
    assert ended["modest"][-1] <= 2 * 0.05 + 0.01
    assert ended["greedy"][-1] == pytest.approx(5.05)  # the sum of all jobs: no time is lost


async def test_long_turns_of_one_sender_count_by_their_time() -> None:
    ended = await ends({"long": [0.1] * 50, "short": [0.001] * 100}, 0.005)
    assert ended["short"][-1] <= 2 * 0.1 + 0.1 + 0.001


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.sampled_from([0.001, 0.005, 0.02]), min_size=1, max_size=20),
        min_size=1,
    ),
    st.sampled_from([0.001, 0.005, 1.0]),
)
def test_each_sender_is_done_in_its_share_of_time_whoever_else_waits(
    jobs: dict[str, list[float]], slice_seconds: float
) -> None:
    ended = asyncio.run(ends(jobs, slice_seconds))
    longest = max(max(each) for each in jobs.values())
    for sender, all_seconds in jobs.items():
        own = sum(all_seconds)
        others = sum(min(sum(each), own + longest) for name, each in jobs.items() if name != sender)
        # In the first slice, before the loop has run the other tasks, every turn goes to the sender that came first.
        assert ended[sender][-1] <= own + others + slice_seconds + longest + 1e-9


async def test_a_quiet_sender_has_not_saved_up_time() -> None:
    turns = Turns(1.0)
    for _ in range(100):
        await turns.take("busy")
        turns.give("busy", 1.0)
    order: list[str] = []

    async def serve(sender: str) -> None:
        await turns.take(sender)
        order.append(sender)
        turns.give(sender, 1.0)

    async with asyncio.timeout(stretched(10)), asyncio.TaskGroup() as group:
        for sender in ["busy", "quiet"] * 4:
            group.create_task(serve(sender))
    assert order[:2].count("quiet") <= 2
    assert order[-4:].count("busy") >= 2


async def test_a_sender_that_gives_up_costs_nobody_a_turn() -> None:
    turns = Turns(1.0)
    await turns.take("a")
    waiting = [asyncio.create_task(turns.take(sender)) for sender in "bc"]
    await asyncio.sleep(0)
    turns.give("a", 2.0)  # in the loop's next round, it is b's turn
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(stretched(10)):
        await waiting[1]
    turns.give("c", 0.1)
    async with asyncio.timeout(stretched(10)):
        await turns.take("d")


async def test_no_more_senders_are_remembered_than_allowed() -> None:
    turns = Turns(0.005)

    at_once = asyncio.Semaphore(200)

    async def serve(sender: str) -> None:
        async with at_once:  # there is always a sender that waits
            await turns.take(sender)
            turns.give(sender, 0.001)
        assert len(turns._served) <= MAX_REMEMBERED + 201

    async with asyncio.timeout(stretched(60)), asyncio.TaskGroup() as group:
        for number in range(5 * MAX_REMEMBERED):
            group.create_task(serve(str(number)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turns._served


async def test_short_documents_of_one_key_do_not_delay_those_of_another() -> None:
    clock = Clock()
    slices = Slices(timer=clock)
    done: list[str] = []

    async def read(sender: str) -> None:
        async with slices.turn(sender, SHORT_BYTES):
            clock.now += 0.004
        done.append(sender)

    async with asyncio.timeout(stretched(30)), asyncio.TaskGroup() as group:
        for sender in ["greedy"] * 200 + ["modest"] * 5:
            group.create_task(read(sender))
    assert [place for place, sender in enumerate(done) if sender == "modest"][-1] < 15
