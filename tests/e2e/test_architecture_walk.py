"""docs/architecture.md, "One decision, file by file": a traced run calls what the page names, in that order."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_consumer.service.service import Service
from flagpost_publisher import Publisher
from in_process import settings_for
from optimizely_fixtures import optimizely_client
from running import eventually

DOCS = Path(__file__).parents[2] / "docs"
STEP = re.compile(r"^\d+\. \[`([\w.]+)`\]\((\S+)\), `([\w.]+)`: ", re.MULTILINE)
FROM_MESSAGE = "From the message to the commit"
TOPICS = {f"flagpost.{name}": 1 for name in ("events", "ledger", "dead-letters", "suppressions")}
MOST_FILES = 14
SECONDS = 60.0


class Call(NamedTuple):
    """One function call: the function's file and qualified name."""

    path: Path
    name: str


def steps(text: str) -> list[Call]:
    found = STEP.findall(text)
    assert all(Path(target).name == shown for shown, target, _ in found)
    return [Call((DOCS / target).resolve(), name) for _, target, name in found]


def page() -> str:
    text = (DOCS / "architecture.md").read_text()
    return text.partition("## One decision, file by file\n")[2].partition("\n## ")[0]


def first_not_passed(walk: Sequence[Call], calls: Sequence[Call]) -> Call | None:
    """The first step of the walk that was not called after the step before it; None: all were called, in order."""
    remaining = iter(calls)
    return next((step for step in walk if step not in remaining), None)


@contextmanager
def traced(calls: list[Call]) -> Iterator[None]:
    """Append every call of Flagpost's own functions to `calls`, in this thread and in threads started meanwhile."""

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and "/src/flagpost_" in code.co_filename:
            calls.append(Call(Path(code.co_filename), code.co_qualname))

    before, before_in_threads = sys.gettrace(), threading.gettrace()
    threading.settrace(note)
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before_in_threads)


def decide(visitor: str, client: object) -> None:
    client.create_user_context(visitor).decide("checkout")  # type: ignore[attr-defined]


async def passed_by_one_decision(walk: Sequence[Call]) -> list[Call]:
    """Every call from one `decide()` on, until the walk is complete or the time is over."""
    calls: list[Call] = []
    with traced(calls), EmbeddedKafka(TOPICS) as kafka:
        async with PendoStandIn() as pendo:
            service = Service(settings_for(kafka, pendo))
            serving = asyncio.ensure_future(service.run())
            client = optimizely_client()
            with Publisher(bootstrap_servers=kafka.bootstrap_servers, service="shop") as publisher:
                publisher.attach(client)
                decide("the first, which starts what is started once", client)
                accounts = service.engine.accounts
                await eventually(lambda: accounts.records and not any(accounts.pending.values()), SECONDS)
                calls.clear()
                decide("the one that is followed", client)
                with contextlib.suppress(AssertionError):  # the test reports which step was not called
                    await eventually(lambda: first_not_passed(walk, [*calls]) is None, SECONDS)
            service.stop()
            assert await serving == 0
    return calls


def test_the_page_names_files_that_exist_and_not_too_many() -> None:
    walk = steps(page())
    assert all(step.path.exists() for step in walk)
    to_commit = steps(page().partition(FROM_MESSAGE)[2])
    files = {step.path for step in to_commit}
    assert 10 < len(files) <= MOST_FILES
    assert f"So {len(files)} files tell" in page()


async def test_a_decision_passes_the_files_that_the_page_names_in_that_order() -> None:
    walk = steps(page())
    calls = await passed_by_one_decision(walk)
    assert first_not_passed(walk, calls) is None


@pytest.mark.parametrize(
    "planted",
    [
        lambda walk: [*reversed(walk)],
        lambda walk: [*walk, Call(walk[0].path, "nobody.calls_this")],
        lambda walk: [walk[1], walk[0], *walk[2:]],
    ],
    ids=["backwards", "a function that is not called", "two steps in the wrong order"],
)
def test_a_walk_that_differs_from_the_run_is_found(planted: object) -> None:
    walk = steps(page())
    assert callable(planted)
    assert first_not_passed(walk, walk) is None
    assert first_not_passed(planted(walk), walk) is not None
