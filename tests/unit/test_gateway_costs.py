"""The cost of a request for the gateway is proportional to its length and to the size of its events.

Costs are counted in calls, not in seconds: a slow machine makes no difference, and a cost that is the product of two
sizes is found on any machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from deadlines import stretched
from flagpost_publisher.gateway import json_documents, native
from flagpost_publisher.gateway.fronts import DocumentError, DocumentTooLarge, Front, Reading
from flagpost_publisher.gateway.segment import FRONTS, SetAside
from flagpost_publisher.gateway.segment.requests import MAX_MESSAGE_BYTES
from flagpost_publisher.gateway.slices import SHORT_BYTES, Slices
from fronts_reading import ANY_KEY, read_batch, read_by, read_call

CALLS_A_BYTE = 8.0
"""A message of 40 bytes takes about 150 calls. It took thousands when its shared parts were made for each message."""
MESSAGE = {"type": "track", "userId": "u", "event": "E"}
EVENT = {"type": "track", "visitor_id": "v", "event": "E"}


class Meter:
    """Counts calls while it is on."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> None:
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, _: FrameType, kind: str, __: object) -> None:
        self.calls += kind in {"call", "c_call"}


def numbered(count: int, value: object = 0) -> dict[str, Any]:
    return {f"m{number}": value for number in range(count)}


def batch_sharing(name: str, shared: object) -> dict[str, Any]:
    return {"batch": [MESSAGE] * 1_000, name: shared}


def nested_names() -> dict[str, Any]:
    inner: dict[str, object] = numbered(60)
    for _ in range(20):
        inner = {"n" * 40: inner}
    return inner


def colliding_names() -> dict[str, Any]:
    """Two names that both become `a_b`, while 2,000 names `a_b_<number>` are already taken."""
    return {**{f"a_b_{number}": 0 for number in range(2_000)}, "a_b": 0, "a": {"b": 0}}


HOSTILE: list[tuple[str, Front, object]] = [
    ("a shared context", FRONTS["/v1/batch"], batch_sharing("context", numbered(3_000))),
    ("a shared context that each message has of its own too", FRONTS["/v1/batch"],
     {"batch": [{**MESSAGE, "context": {"ip": "::1"}}] * 1_000, "context": numbered(3_000)}),
    ("shared integrations", FRONTS["/v1/batch"], batch_sharing("integrations", numbered(3_000, value=True))),
    ("shared traits", FRONTS["/v1/batch"], batch_sharing("context", {"traits": numbered(3_000)})),
    ("a shared consent of a few categories", FRONTS["/v1/batch"],
     batch_sharing("context", {"consent": {"categoryPreferences": numbered(100, value=True)}})),
    ("a shared consent of many", FRONTS["/v1/batch"],
     batch_sharing("context", {"consent": {"categoryPreferences": numbered(3_000, value=True)}})),
    ("messages that are none of ours", FRONTS["/v1/batch"], {"batch": [{"type": "x"}] * 5_000}),
    ("names of names", native.read_events, [{**EVENT, "properties": nested_names()}] * 100),
    ("names of names in messages", FRONTS["/v1/batch"],
     {"batch": [{**MESSAGE, "properties": nested_names()}] * 100}),
    ("names that collide", native.read_events, [{**EVENT, "properties": colliding_names()}] * 3),
    ("lists of lists", native.read_events, [{**EVENT, "properties": {"n": [[[]]] * 5_000}}]),
    ("small events", native.read_events, [EVENT] * 2_000),
]  # fmt: skip


@pytest.mark.parametrize(
    ("front", "document"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_the_cost_of_a_request_is_proportional_to_its_length_and_to_the_size_of_its_events(
    front: Front, document: object
) -> None:
    body = json.dumps(document).encode()
    parsed = json_documents.tolerant(body)
    reading, meter = Reading(0, ANY_KEY), Meter()

    with meter:
        try:
            for _ in front(parsed, reading):
                pass
        except DocumentError:
            pass  # then nothing is published, but the calls until then count

    assert meter.calls < CALLS_A_BYTE * (len(body) + reading.size_bytes)


def test_the_shared_part_of_a_batch_is_counted_before_it_is_written_out() -> None:
    shared = {"consent": {"categoryPreferences": numbered(5_000, value=True)}}

    reading = Reading(0, ANY_KEY)
    with pytest.raises(DocumentTooLarge, match="becomes more than"):
        next(FRONTS["/v1/batch"](batch_sharing("context", shared), reading))

    assert (reading.events, reading.size_bytes) == ([], 0)


def test_the_consent_of_a_batch_applies_to_the_messages_without_their_own() -> None:
    own = {"consent": {"categoryPreferences": {"a": False}}}
    messages = [MESSAGE, {**MESSAGE, "context": own}, {**MESSAGE, "context": {"consent": None}}]
    shared = {"consent": {"categoryPreferences": {"a": True, "b": 1}}}

    events = read_batch({"batch": messages, "context": shared}, 0).events

    assert [event.consent for event in events] == [{"a": True, "b": False}, {"a": False}, None]


def message_of(size: int) -> dict[str, Any]:
    """A message of `size` bytes of JSON."""
    empty = {**MESSAGE, "properties": {"t": ""}}
    left = size - len(json.dumps(empty, separators=(",", ":")))
    return {**MESSAGE, "properties": {"t": "x" * left}}


def test_a_message_has_at_most_32_kilobytes() -> None:
    assert len(read_call("track", message_of(MAX_MESSAGE_BYTES), 0).events) == 1
    with pytest.raises(DocumentTooLarge, match="more than 32,768 bytes"):
        read_call("track", message_of(MAX_MESSAGE_BYTES + 1), 0)


def test_a_message_too_long_costs_a_batch_only_itself() -> None:
    batch = [MESSAGE, message_of(MAX_MESSAGE_BYTES + 1), message_of(MAX_MESSAGE_BYTES)]

    reading = read_batch({"batch": batch}, 0)

    assert len(reading.events) == 2
    assert reading.set_aside == {SetAside.TOO_LARGE: 1}


def test_a_message_that_becomes_more_than_an_event_may_have_costs_a_batch_only_itself() -> None:
    batch = [MESSAGE, {**MESSAGE, "properties": {"n" * 500: numbered(180)}}]

    reading = read_batch({"batch": batch}, 0)

    assert len(reading.events) == 1
    assert reading.set_aside == {SetAside.TOO_LARGE: 1}
    assert reading.size_bytes > 80_000  # the events made of the refused message count, too


@pytest.mark.parametrize("seconds", [0.004, 0.006])
async def test_a_long_document_lets_the_loop_go_on_after_each_slice(seconds: float) -> None:
    now = 0.0
    slices, ticks = Slices(slice_seconds=0.005, timer=lambda: now), []

    async def tick() -> None:
        while True:
            ticks.append(now)
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    async with slices.turn("a", SHORT_BYTES + 1) as turn:
        ticks.clear()
        for _ in range(10):
            now += seconds
            await turn.pause()
    ticking.cancel()
    assert len(ticks) >= (10 if seconds > 0.005 else 5)


async def test_one_long_document_is_read_at_a_time_and_short_ones_do_not_wait_for_it() -> None:
    slices = Slices(slice_seconds=1e-9)
    async with asyncio.timeout(stretched(10)), slices.turn("a", SHORT_BYTES + 1) as reading:
        second = asyncio.create_task(take(slices, SHORT_BYTES + 1))
        short = asyncio.create_task(take(slices, SHORT_BYTES))
        while not short.done():
            await reading.pause()
        assert not second.done()
    await asyncio.wait_for(second, stretched(10))


async def take(slices: Slices, size_bytes: int) -> None:
    async with slices.turn("a", size_bytes):
        pass


def test_a_front_can_pause_after_each_message() -> None:
    def steps(front: Front, document: object) -> Iterator[None]:
        return front(document, Reading(0, ANY_KEY))

    assert len(list(steps(FRONTS["/v1/batch"], {"batch": [MESSAGE, {"type": "x"}, MESSAGE]}))) == 3
    assert len(list(steps(native.read_events, [EVENT] * 3))) == 3
    assert len(read_by(native.read_events, [EVENT] * 3).events) == 3
