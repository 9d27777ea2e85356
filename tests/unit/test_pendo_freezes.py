"""One answer for each attempt, whatever happens to its task and to the loop.

uvloop runs timers that are due before callbacks that are ready, so a loop that stood still ends requests first, and
steps and reads later. `time.sleep` in a coroutine is such a freeze of the loop: it stands for SIGSTOP, for a pause
of the machine and for a long collection of garbage.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvloop

from flagpost_consumer.core.verdict import Answer, Failure
from pendo_client import GENEROUS_SECONDS, client, read_request, server_in_thread, serving, track_attempt

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TIMEOUT_SECONDS = 0.5
UNSENT = Answer(failure=Failure.UNREACHABLE)


async def next_answer(answers: asyncio.Queue[Answer]) -> Answer:
    return await asyncio.wait_for(answers.get(), GENEROUS_SECONDS)


async def frozen_before_the_first_step() -> None:
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(OK)
        await writer.drain()

    async with serving(serve) as url, client(url, TIMEOUT_SECONDS) as (http, answers):
        for number in range(3):
            http.start(track_attempt(f"v{number}"))
        time.sleep(2 * TIMEOUT_SECONDS)  # noqa: ASYNC251 - the freeze
        assert [await next_answer(answers) for _ in range(3)] == [UNSENT] * 3
        http.start(track_attempt())
        assert await next_answer(answers) == Answer(200)
        assert answers.empty()
    assert requests == 1


async def frozen_while_answers_come() -> None:
    with server_in_thread(32, OK) as server:
        async with client(server.url, TIMEOUT_SECONDS) as (http, answers):
            for number in range(32):
                http.start(track_attempt(f"v{number}"))
            assert await asyncio.to_thread(server.received.wait, GENEROUS_SECONDS)
            server.release()
            assert server.answered.wait(GENEROUS_SECONDS)
            time.sleep(2 * TIMEOUT_SECONDS)  # noqa: ASYNC251 - the freeze
            assert [await next_answer(answers) for _ in range(32)] == [Answer(200)] * 32
    assert server.count == 32


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
@pytest.mark.parametrize("history", [frozen_before_the_first_step, frozen_while_answers_come])
def test_a_loop_that_stood_still(run: Any, history: Any) -> None:
    run(history())
