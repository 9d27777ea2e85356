"""Requests to the registry on the event loop: each has one answer, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deadlines import stretched
from engine_steps import decoded_into
from engine_world import decision
from flagpost_consumer.adapters.kafka.decoding import Decoding
from flagpost_consumer.adapters.registry import schema_source
from flagpost_consumer.adapters.registry.errors import (
    RegistryNotAnswering,
    RegistryTurnsAway,
    SchemaDoesNotExist,
    SchemaUnusable,
)
from flagpost_consumer.adapters.registry.schema_source import RegistryRequests
from flagpost_consumer.core.planning.schema_lookups import (
    Found,
    NoAnswer,
    Refused,
    SchemaAnswer,
    TurnedAway,
    Unusable,
)
from flagpost_consumer.core.records import Record
from flagpost_schemas import DecisionEvent, encode_confluent, schema_of
from registry_world import messages
from running import eventually

SECONDS = 10.0


class Registry:
    """A registry whose answers the test sets."""

    def __init__(self, answer: Callable[[int], Awaitable[str]]) -> None:
        self.answer = answer
        self.asked: list[int] = []

    async def fetch(self, schema_id: int) -> str:
        self.asked.append(schema_id)
        return await self.answer(schema_id)


def raising(error: BaseException) -> Callable[[int], Awaitable[str]]:
    async def answer(_schema_id: int) -> str:
        raise error

    return answer


async def for_ever(_schema_id: int) -> str:
    await asyncio.Event().wait()
    return ""


async def answer_of(registry: Registry) -> SchemaAnswer:
    told: asyncio.Future[SchemaAnswer] = asyncio.get_running_loop().create_future()
    defects: list[Exception] = []
    requests = RegistryRequests(registry, defects.append)
    requests.ask(7, lambda _id, answer: told.set_result(answer))
    answer = await asyncio.wait_for(told, stretched(SECONDS))
    assert not defects
    assert not requests._requests
    return answer


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (SchemaDoesNotExist("there is none"), Refused("there is none")),
        (SchemaUnusable("it is PROTOBUF"), Unusable("it is PROTOBUF")),
        (RegistryNotAnswering("status 503"), NoAnswer("status 503")),
        (RegistryTurnsAway("status 401"), TurnedAway("status 401")),
        (asyncio.CancelledError(), NoAnswer("the request was given up")),
    ],
)
async def test_each_kind_of_error_is_one_answer(error: BaseException, answer: SchemaAnswer) -> None:
    assert await answer_of(Registry(raising(error))) == answer


async def test_a_defect_of_the_client_is_not_an_answer_and_shows_no_data() -> None:
    answer = await answer_of(Registry(raising(KeyError("secret"))))
    assert isinstance(answer, NoAnswer)
    assert answer.why.startswith("a defect of Flagpost's: KeyError at ")
    assert "secret" not in answer.why


async def test_a_request_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_source, "LONGEST_REQUEST_SECONDS", 0.01)
    assert await answer_of(Registry(for_ever)) == NoAnswer("no answer in 0.01 s")


async def test_an_error_of_our_code_at_an_answer_is_reported() -> None:
    async def found(_schema_id: int) -> str:
        return "{}"

    def defective(_schema_id: int, answer: SchemaAnswer) -> None:
        assert answer == Found("{}")
        raise KeyError("nobody thought of this")

    defects: list[Exception] = []
    requests = RegistryRequests(Registry(found), defects.append)
    requests.ask(7, defective)
    await eventually(lambda: defects, SECONDS)
    assert isinstance(defects[0], KeyError)


async def test_after_the_stop_nothing_is_reported_and_nothing_wakes() -> None:
    told: list[int] = []
    requests = RegistryRequests(Registry(for_ever), lambda _: told.append(-1))
    requests.ask(7, lambda schema_id, _answer: told.append(schema_id))
    requests.wake_after(0.0, lambda: told.append(0))
    await asyncio.sleep(0)
    under_way = list(requests._requests)
    requests.stop()
    requests.wake_after(0.0, lambda: told.append(0))
    await asyncio.wait(under_way, timeout=stretched(SECONDS))
    await asyncio.sleep(0)
    assert not requests._requests
    assert told == []


async def test_a_registry_that_fails_once_is_asked_again_and_the_record_decoded() -> None:
    async def text(_schema_id: int) -> str:
        if len(registry.asked) == 1:
            raise RuntimeError("nobody thought of this")
        return schema_of(DecisionEvent).text

    registry = Registry(text)
    taken: list[Record] = []
    defects: list[Exception] = []
    decoding = Decoding(RegistryRequests(registry, defects.append), decoded_into(taken))
    decoding.take(messages(encode_confluent(decision("v"), 7)), lambda: None)
    await eventually(lambda: taken, SECONDS)
    assert taken[0].event == decision("v")
    assert registry.asked == [7, 7]
    assert not defects
