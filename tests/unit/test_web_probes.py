"""The page's probes: ready once the topics have been read, live while something reads them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import aiohttp
import pytest

from flagpost_consumer.commands.sources import topic_reading
from flagpost_consumer.settings import KafkaSettings, Settings, WebSettings
from flagpost_consumer.web import following as following_module
from flagpost_consumer.web import marks as marks_module
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_consumer.web.beats import Beats
from flagpost_consumer.web.following import Following, State
from flagpost_consumer.web.live import Live
from flagpost_consumer.web.program import STILL_SECONDS, Program
from running import eventually

NOW_MS = 1_800_000_000_000
SETTINGS = Settings(web=WebSettings(port=0), kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"))
SHOWN = State(Aggregates(NOW_MS - 3_600_000, NOW_MS, SETTINGS).view(NOW_MS), 1.0)


NOTHING = State()


@dataclass
class Read:
    """Replaces the reader, with the state that it would have."""

    state: State = NOTHING
    still_seconds: float = 0.0


@asynccontextmanager
async def probed(read: Read) -> AsyncIterator[Callable[[str], Any]]:
    program = Program(SETTINGS, read)
    url = await program.start()
    try:
        async with aiohttp.ClientSession() as session:

            async def ask(path: str) -> tuple[int, str]:
                async with session.get(url + path) as answer:
                    return answer.status, await answer.text()

            yield ask
    finally:
        await program.stop()


async def test_it_is_ready_once_everything_has_been_read_and_stays_so() -> None:
    read = Read()
    async with probed(read) as ask:
        assert await ask("/readyz") == (503, "the topics are being read\n")
        assert await ask("/livez") == (200, "live\n")
        read.state = State(read=0.999, wrong="127.0.0.1:1 does not answer")
        assert await ask("/readyz") == (503, "the topics are being read\n")
        read.state = SHOWN
        assert await ask("/readyz") == (200, "ready\n")
        read.state = replace(SHOWN, read=0.1, wrong="Kafka has gone away")
        assert await ask("/readyz") == (200, "ready\n")


async def test_it_is_not_live_if_reading_has_stopped() -> None:
    read = Read(SHOWN)
    async with probed(read) as ask:
        read.still_seconds = STILL_SECONDS
        assert await ask("/livez") == (200, "live\n")
        read.still_seconds = STILL_SECONDS + 1
        assert await ask("/livez") == (503, "the reading of the topics has stood still for 61 s\n")


async def test_it_is_not_live_if_a_part_of_it_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Live, "run", fail)
    async with probed(Read(SHOWN)) as ask:
        await asyncio.sleep(0)
        assert await ask("/livez") == (503, "a part of the page has failed; the log says which\n")


async def test_a_loop_that_stands_still_answers_no_probe() -> None:
    """A probe from outside gets no answer until the loop continues."""
    goes_on, urls = threading.Event(), list[str]()
    loop = asyncio.new_event_loop()
    program = Program(SETTINGS, Read(SHOWN))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        starting = asyncio.run_coroutine_threadsafe(program.start(), loop)
        urls.append(await asyncio.wrap_future(starting))
        loop.call_soon_threadsafe(goes_on.wait)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await session.get(f"{urls[0]}/livez", timeout=aiohttp.ClientTimeout(total=0.3))
            goes_on.set()
            async with session.get(f"{urls[0]}/livez") as answer:
                assert answer.status == 200
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(program.stop(), loop))
    finally:
        goes_on.set()
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        loop.close()


class Stuck:
    """Replaces the reader of topics: a call that does not return until the test ends."""

    let_go = threading.Event()

    def __init__(self, *_: object) -> None:
        self.let_go.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


async def test_a_call_that_does_not_return_counts_as_standing_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(Stuck, "let_go", threading.Event())
    monkeypatch.setattr(marks_module, "TopicReader", Stuck)
    for module in (following_module, marks_module):
        monkeypatch.setattr(module, "Beats", lambda: Beats(lambda: now))
    following = Following(SETTINGS)
    following.start()
    try:
        now = 200.0
        await eventually(lambda: following._beats.still_seconds == 0, what="it goes on waiting for a mark")
        assert following.still_seconds == 200.0
    finally:
        Stuck.let_go.set()
        await asyncio.to_thread(following.stop)


async def test_without_kafka_it_is_live_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Kafka is down, a restart of the page would fix nothing."""
    now = 0.0
    monkeypatch.setattr(topic_reading, "CALL_SECONDS", 0.5)
    for module in (following_module, marks_module):
        monkeypatch.setattr(module, "Beats", lambda: Beats(lambda: now))
    following = Following(SETTINGS)
    following.start()
    try:
        for now in (100.0, 200.0):  # noqa: B007 - read by the threads
            await eventually(lambda: following.still_seconds == 0, what="both threads go on")
        assert following.state.view is None
    finally:
        await asyncio.to_thread(following.stop)
