"""Each part of the simulation alone: time, processes, threads, logs, and what the oracle must find."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any

import pytest

from simulation import clients, threads
from simulation.broker import Broker, Log
from simulation.clients import SimulatedConsumer
from simulation.history import logging_into_histories
from simulation.loop import Process, SimulatedLoop
from simulation.surroundings import simulated
from simulation.world import World


def run(loop: SimulatedLoop, seconds: float) -> None:
    """Run the loop for a time."""
    loop.call_at(loop.now + seconds, loop.stop)
    loop.run_forever()


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    made = SimulatedLoop(timers_first=True)
    yield made
    made.close()


@pytest.fixture
def scheduler(loop: SimulatedLoop) -> threads.Scheduler:
    def fail(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    made = threads.Scheduler(loop, Random(1), fail)
    threads.use(made)
    return made


def test_time_jumps_to_what_is_due(loop: SimulatedLoop) -> None:
    async def wait() -> float:
        began = loop.time()
        await asyncio.sleep(86_400)
        return loop.time() - began

    assert loop.run_until_complete(wait()) == 86_400


def test_a_run_is_forgotten_when_its_surroundings_end() -> None:
    """Otherwise aiohttp warns of a dead process's connections, in whichever test the garbage collector runs."""
    with simulated(), logging_into_histories():
        world = World(0)
        world.run()
        remembered = weakref.ref(world)
        del world
    assert remembered() is None


def test_what_a_thread_asks_of_a_dead_process_is_closed_with_the_run(
    loop: SimulatedLoop, scheduler: threads.Scheduler
) -> None:
    """Otherwise Python warns of a coroutine that was never awaited, in whichever test the garbage collector runs."""
    dead = Process("dead", loop)
    asked: list[Coroutine[Any, Any, None]] = []

    async def never() -> None:
        raise AssertionError("a dead process does nothing")

    def ask() -> None:
        asked.append(never())
        threads.run_coroutine_threadsafe(asked[0], loop)
        dead.kill()

    dead.context.run(scheduler.start, "asking", ask)
    run(loop, 1)
    assert inspect.getcoroutinestate(asked[0]) == inspect.CORO_CREATED
    scheduler.close()
    assert inspect.getcoroutinestate(asked[0]) == inspect.CORO_CLOSED


def test_timers_of_one_moment_come_in_the_order_in_which_they_were_set(loop: SimulatedLoop) -> None:
    seen: list[int] = []
    for number in range(5):
        loop.call_at(loop.now + 1, seen.append, number)
    run(loop, 2)
    assert seen == [0, 1, 2, 3, 4]


def test_a_frozen_process_does_later_what_was_due_and_a_dead_one_never(loop: SimulatedLoop) -> None:
    frozen, dead = Process("frozen", loop), Process("dead", loop)
    seen: list[tuple[str, float]] = []
    for process in (frozen, dead):
        loop.call_later(1, lambda name=process.name: seen.append((name, loop.now)), context=process.context)
    frozen.freeze(3)
    dead.kill()
    began = loop.now
    run(loop, 5)
    assert seen == [("frozen", began + 3)]


def test_a_thread_waits_without_keeping_the_loop(loop: SimulatedLoop, scheduler: threads.Scheduler) -> None:
    event, seen = threads.Event(), []

    def work() -> None:
        seen.append(event.wait(2.0))
        seen.append(event.wait(2.0))

    scheduler.start("worker", work)
    loop.call_later(3, event.set)
    run(loop, 10)
    assert seen == [False, True]


def test_a_wait_on_the_loop_itself_is_told(loop: SimulatedLoop, scheduler: threads.Scheduler) -> None:
    del loop, scheduler
    with pytest.raises(AssertionError, match="the event loop would wait"):
        threads.Event().wait(1.0)


def test_a_loop_that_spins_is_told(loop: SimulatedLoop) -> None:
    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    with pytest.raises(AssertionError, match="spins"):
        loop.run_forever()


def test_a_client_that_was_closed_unheard_is_no_member_after_a_session(loop: SimulatedLoop) -> None:
    """Its process continues with another client: nobody would read the partitions of the old one."""
    told: list[str] = []
    broker = Broker(loop, Random(1), told.append, 1, session_seconds=6.0, eager=False)
    broker.create("topic", 1)
    clients.use(broker)
    process = Process("c0", loop)
    client = process.context.run(SimulatedConsumer, {"group.protocol": "classic"})
    threads.use(threads.Scheduler(loop, Random(1), lambda *_: None))
    client.subscribe(["topic"], *[lambda *_: None] * 3)
    run(loop, 1)
    process.is_cut_off = True
    client.close()
    process.is_cut_off = False
    for _ in range(8):
        run(loop, 1)
        broker.group.look_after()
    assert told[-1] == "the group gives up member 0 (c0) with [0]"


def test_a_log_has_holes_goes_back_and_forgets_its_beginning() -> None:
    log = Log("topic", 0)
    for _ in range(3):
        log.append(None, b"value", (), 0)
    log.leave_hole(2)
    assert log.append(None, b"value", (), 0) == 5
    assert [each.offset for each in log.read(2, 10)] == [2, 5]
    assert [each.offset for each in log.go_back(2)] == [2, 5]
    assert (log.end, log.epoch) == (2, 1)
    assert log.diverged_at(0, 6) == 2
    assert log.diverged_at(0, 2) is None
    log.delete_before(1)
    assert [each.offset for each in log.read(0, 10)] == [1]
