"""Each attempt has one answer, whatever happens to its task and to the event loop.

uvloop runs timers that are due before callbacks that are ready. So after a freeze the loop ends requests first, and
runs tasks and reads sockets later. `time.sleep` in a coroutine freezes the loop like SIGSTOP, a pause of the machine
or a long garbage collection. The client's clock is passed in, so no test here depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
import uvloop

from deadlines import stretched
from flagpost_consumer.adapters.http.client import HttpClient
from flagpost_consumer.adapters.pendo.http import FORGOTTEN_WATCHES, GRACE_SWEEPS, SWEEP_SECONDS, PendoHttp
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from pendo_client import (
    GENEROUS_SECONDS,
    Clock,
    answering,
    client,
    hanging_after,
    read_request,
    sent,
    server_in_thread,
    serving,
    status_known,
    track_attempt,
)
from running import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TIMEOUT_SECONDS = 10.0
UNSENT = Answer(failure=Failure.UNREACHABLE)
TIMED_OUT = Answer(failure=Failure.TIMEOUT)

Answers = asyncio.Queue[Answer]


def freeze_the_loop(clock: Clock) -> None:
    """Block the loop until the time of every request is over and the next sweep is due."""
    clock.seconds += 2 * TIMEOUT_SECONDS
    time.sleep(2 * SWEEP_SECONDS)


async def next_answer(answers: Answers) -> Answer:
    return await asyncio.wait_for(answers.get(), stretched(GENEROUS_SECONDS))


async def frozen_before_the_first_step() -> None:
    """Before the fix, the coroutine was cancelled before it began, so its `except` never ran and no answer came."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(OK)
        await writer.drain()

    clock = Clock()
    async with serving(serve) as url, client(url, TIMEOUT_SECONDS, now=clock) as (http, answers):
        for number in range(3):
            http.start(track_attempt(f"v{number}"))
        freeze_the_loop(clock)
        assert [await next_answer(answers) for _ in range(3)] == [UNSENT] * 3
        assert http.oldest_attempt_seconds == 0.0
        http.start(track_attempt())
        assert await next_answer(answers) == Answer(200)
        assert answers.empty()
    assert requests == 1, "what was answered as unsent was not sent later"


async def frozen_while_answers_come() -> None:
    """Before the fix, all 32 timed out although their answers were in the socket buffers, and were sent again."""
    clock = Clock()
    with server_in_thread(32, OK) as server:
        async with client(server.url, TIMEOUT_SECONDS, now=clock) as (http, answers):
            for number in range(32):
                http.start(track_attempt(f"v{number}"))
            assert await asyncio.to_thread(server.received.wait, stretched(GENEROUS_SECONDS))
            server.release()
            assert server.answered.wait(stretched(GENEROUS_SECONDS))
            freeze_the_loop(clock)
            assert [await next_answer(answers) for _ in range(32)] == [Answer(200)] * 32
    assert server.count == 32


async def frozen_again_and_again() -> None:
    """Each attempt is given a few more sweeps, only once: it ends even in a loop that is always late."""
    clock = Clock()
    held = asyncio.Event()
    async with (
        serving(hanging_after(b"", held)) as url,
        client(url, TIMEOUT_SECONDS, now=clock) as (http, answers),
    ):
        http.start(track_attempt())
        await sent(http)
        freezes = 0
        while answers.empty():
            freeze_the_loop(clock)
            freezes += 1
            await asyncio.sleep(SWEEP_SECONDS)
        assert answers.get_nowait() == TIMED_OUT
        assert freezes <= 2 * (GRACE_SWEEPS + 2)
        held.set()


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
@pytest.mark.parametrize(
    "history", [frozen_before_the_first_step, frozen_while_answers_come, frozen_again_and_again]
)
def test_a_loop_that_stood_still(run: Any, history: Callable[[], Awaitable[None]]) -> None:
    run(history())


async def test_an_attempt_without_a_connection_at_its_time_out_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the fix, the answer was a time-out, as if Pendo might have seen it; after a freeze it was sent late."""
    clock = Clock()
    requests = 0

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += len(await reader.read()) > 0

    connect = HttpClient.connect

    async def slow(self: HttpClient, *arguments: Any) -> Any:
        exchange = await connect(self, *arguments)
        clock.seconds += TIMEOUT_SECONDS  # between the engine's last check and the write
        return exchange

    monkeypatch.setattr(HttpClient, "connect", slow)
    async with serving(serve) as url, client(url, TIMEOUT_SECONDS, now=clock) as (http, answers):
        http.start(track_attempt())
        assert await next_answer(answers) == UNSENT
    assert requests == 0


@pytest.mark.parametrize(
    "error", [RuntimeError("ours"), MemoryError(), GeneratorExit(), asyncio.CancelledError()]
)
async def test_a_task_that_ends_in_any_way_has_an_answer(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Before the fix, no answer came after a BaseException that is no Exception, or a cancellation from outside."""

    async def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(HttpClient, "connect", broken)
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        assert await next_answer(answers) == UNSENT
        assert answers.empty()


async def test_tasks_that_are_cancelled_from_outside_have_answers() -> None:
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await next_answer(answers) == UNSENT


async def test_closing_answers_each_attempt_in_flight_with_what_is_known_of_it() -> None:
    """Before the fix, attempts in flight had no answer, whether they had begun or not."""
    held = asyncio.Event()
    async with (
        serving(hanging_after(b"", held)) as silent,
        serving(hanging_after(b"HTTP/1.1 200 OK\r\n", held)) as begun,
        client(silent) as (http, answers),
        client(begun) as (other, others),
    ):
        http.start(track_attempt())
        other.start(track_attempt())
        await sent(http)
        await sent(other)
        await status_known(other)
        http.start(track_attempt("not begun"))
        await http.close()
        await other.close()
        http.start(track_attempt("too late"))
        assert [await next_answer(answers) for _ in range(3)] == [
            Answer(failure=Failure.BROKEN),
            UNSENT,
            UNSENT,
        ]
        assert await next_answer(others) == Answer(200)
        assert answers.empty()
        held.set()


async def test_the_age_of_the_oldest_attempt() -> None:
    clock = Clock()
    held = asyncio.Event()
    async with (
        serving(hanging_after(OK, held)) as url,
        client(url, TIMEOUT_SECONDS, now=clock) as (http, answers),
    ):
        assert http.oldest_attempt_seconds == 0.0
        http.start(track_attempt("a"))
        clock.seconds += 3.0
        http.start(track_attempt("b"))
        assert http.oldest_attempt_seconds == 3.0
        for _ in range(2):
            await next_answer(answers)
        assert http.oldest_attempt_seconds == 0.0
        held.set()


async def test_an_attempt_that_is_forgotten_is_given_up_and_called_a_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sweep is broken here, so the watch ends the attempt, after `FORGOTTEN_WATCHES` calls."""
    monkeypatch.setattr(PendoHttp, "_end_overdue", lambda self: setattr(self, "_sweep", None))
    clock = Clock()
    held = asyncio.Event()
    async with (
        serving(hanging_after(b"", held)) as url,
        client(url, TIMEOUT_SECONDS, now=clock) as (http, answers),
    ):
        http.start(track_attempt())
        await sent(http)
        for _ in range(2 * FORGOTTEN_WATCHES):
            http.watch()
        assert answers.empty(), "it has time"
        clock.seconds += 100 * TIMEOUT_SECONDS
        for _ in range(FORGOTTEN_WATCHES):
            http.watch()
        assert answers.empty(), "a freeze, however long, is not a defect"
        with structlog.testing.capture_logs() as logs:
            http.watch()
        assert answers.get_nowait() == Answer(failure=Failure.BROKEN)
        assert [(entry["log_level"], entry["endpoint"]) for entry in logs] == [("error", "track")]
        assert "defect" in logs[0]["event"]
        held.set()


async def test_the_sweep_goes_on_after_an_error() -> None:
    """Before the fix, no sweep was scheduled after one that raised, so nothing timed out any more."""
    clock = Clock()
    held = asyncio.Event()
    heard: Answers = asyncio.Queue()
    async with serving(hanging_after(b"", held)) as url, client(url, TIMEOUT_SECONDS, now=clock) as (http, _):

        def hear(_: object, answer: Answer, __: float) -> None:
            heard.put_nowait(answer)
            if heard.qsize() == 1:
                raise RuntimeError("the listener's")

        http._on_answer = hear
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        http.start(track_attempt("a"))
        http.start(track_attempt("b"))
        await sent(http)
        clock.seconds += TIMEOUT_SECONDS
        await eventually(lambda: heard.qsize() == 2, GENEROUS_SECONDS)
        assert [heard.get_nowait(), heard.get_nowait()] == [TIMED_OUT, TIMED_OUT]
        held.set()


async def test_a_time_out_is_late_by_a_few_sweeps_at_most() -> None:
    clock = Clock()
    held = asyncio.Event()
    async with (
        serving(hanging_after(b"", held)) as url,
        client(url, TIMEOUT_SECONDS, now=clock) as (http, answers),
    ):
        http.start(track_attempt())
        await sent(http)
        http._end_overdue()
        clock.seconds += TIMEOUT_SECONDS
        for _ in range(GRACE_SWEEPS):
            http._end_overdue()
            assert answers.empty()
        http._end_overdue()
        assert answers.get_nowait() == TIMED_OUT
        held.set()


async def test_a_time_out_closes_its_connection() -> None:
    """An answer that comes too late must not be taken for the answer to the next request."""
    clock = Clock()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await read_request(reader)
            await reader.read()  # until the client hangs up
        else:
            await answering(OK)(reader, writer)

    async with serving(serve) as url, client(url, TIMEOUT_SECONDS, now=clock) as (http, answers):
        http.start(track_attempt())
        await sent(http)
        clock.seconds += TIMEOUT_SECONDS
        assert await next_answer(answers) == TIMED_OUT
        http.start(track_attempt())
        assert await next_answer(answers) == Answer(200)
    assert connections == 2
