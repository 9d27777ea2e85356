"""One answer for each attempt, whatever happens to its task and to the loop.

uvloop runs timers that are due before callbacks that are ready, so a loop that stood still ends requests first, and
steps and reads later. `time.sleep` in a coroutine is such a freeze of the loop: it stands for SIGSTOP, for a pause
of the machine and for a long collection of garbage. The client's own clock is passed in, so no test here depends on
how fast the machine is.
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
    """Nothing of the loop runs while every request's time goes by, and the next sweep becomes due."""
    clock.seconds += 2 * TIMEOUT_SECONDS
    time.sleep(2 * SWEEP_SECONDS)


async def next_answer(answers: Answers) -> Answer:
    return await asyncio.wait_for(answers.get(), stretched(GENEROUS_SECONDS))


async def frozen_before_the_first_step() -> None:
    """Before: the coroutine was cancelled before it had begun, its `except` never ran, and no answer ever came."""
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
    """Before: all 32 timed out with their answers in the socket buffers, and were sent again."""
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
    """The grace is counted in sweeps, once for each request: a loop that is always late still ends them."""
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


async def test_what_waits_for_a_connection_when_its_time_is_over_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: it was a time-out, as if Pendo might have seen it; and what was frozen here was sent out of turn."""
    clock = Clock()
    requests = 0

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += len(await reader.read()) > 0

    connect = HttpClient.connect

    async def slow(self: HttpClient, *arguments: Any) -> Any:
        exchange = await connect(self, *arguments)
        clock.seconds += TIMEOUT_SECONDS  # between the last check of the engine and the write
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
    """Before: what is no Exception left the attempt without an answer; so did a cancellation by somebody else."""

    async def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(HttpClient, "connect", broken)
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        assert await next_answer(answers) == UNSENT
        assert answers.empty()


async def test_tasks_that_somebody_else_cancels_have_answers() -> None:
    async with client("http://127.0.0.1:1") as (http, answers):
        http.start(track_attempt())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await next_answer(answers) == UNSENT


async def test_closing_answers_what_is_under_way_by_what_is_known_of_it() -> None:
    """Before: what was under way, begun or not, had no answer."""
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
    """The sweep is broken here: what it should have ended is ended by the watch, after a stated number of calls."""
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
    """Before: a sweep that raised was never made again, and nothing timed out any more."""
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


async def test_a_time_out_takes_its_connection_along() -> None:
    """An answer that comes too late must not be taken for the next one's."""
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
