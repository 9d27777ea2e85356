"""Messages that wait to be decoded are forgotten when their partition is taken away.

They are never taken for records of a later assignment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from aiohttp import web
from confluent_kafka import Message

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.planning.suppressions import Suppressions
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Needs, load_settings
from flagpost_schemas import DecisionEvent, encode_confluent, encode_single_object, schema_of
from running import eventually

SECONDS = 30.0
"""How long a test waits for a condition that must become true."""
SCHEMA_ID = 7
EVENT = decision("v", occurred_at=clock().wall_ms)


class SlowRegistry:
    """A schema registry that answers once `go` is set."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.url = ""
        self.services: list[Service] = []
        """The services that ask it. Each keeps a connection open."""
        application = web.Application()
        application.router.add_get("/schemas/ids/{id}", self._answer)
        self._runner = web.AppRunner(application)

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked.set()
        await self.go.wait()
        return web.json_response({"schema": schema_of(DecisionEvent).text})

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go.set()
        for service in self.services:
            assert service.loop.registry is not None
            await service.loop.registry.close()
        await self._runner.cleanup()


@pytest.fixture
async def registry() -> AsyncIterator[SlowRegistry]:
    async with SlowRegistry() as running:
        yield running


class Intake:
    """Stand-in for the Kafka thread: every call does nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def service_with(registry: SlowRegistry) -> Service:
    values = {
        "KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA__SCHEMA_REGISTRY__URL": registry.url,
        "PENDO__TRACK_URL": "http://127.0.0.1:1/data/track",
        "PENDO__API_URL": "http://127.0.0.1:1",
        "PENDO__TRACK_SECRET": "secret",
        "DECISIONS__VISITOR_METADATA": "false",
    }
    environ = {f"FLAGPOST_{name}": value for name, value in values.items()}
    service = Service(load_settings(None, environ, Needs.KAFKA | Needs.PENDO))
    service.loop.intake = cast("Any", Intake())
    registry.services.append(service)
    return service


def take_over(service: Service, *numbers: int) -> None:
    """Assign partitions, and restore them from offset 0."""
    service.calls.on_assigned(list(numbers), 2, 1)
    for number in numbers:
        partition = service.engine.current(number)
        assert partition is not None
        service.engine.restore(partition, Restoration(0, service._settings.dedupe))
    service.releases.on_suppressions_known(Suppressions())


def message(value: bytes, offset: int, partition: int = 0) -> Message:
    return cast(
        "Message",
        SimpleNamespace(
            value=lambda: value,
            partition=lambda: partition,
            offset=lambda: offset,
            key=lambda: b"v",
            headers=lambda: None,
            timestamp=lambda: (1, EVENT.occurred_at),
            error=lambda: None,
            leader_epoch=lambda: None,
            __len__=lambda: len(value),
        ),
    )


UNKNOWN_YET, KNOWN = encode_confluent(EVENT, SCHEMA_ID), encode_single_object(EVENT)


async def give_up(service: Service, how: str, number: int) -> None:
    if how == "lost":
        service.calls.on_lost([number])
    else:
        await asyncio.wait_for(service.calls.on_revoked([number]), stretched(SECONDS))


@pytest.mark.parametrize("how", ["revoked", "lost"])
async def test_a_message_that_waited_for_its_schema_is_not_taken_into_the_next_assignment(
    registry: SlowRegistry, how: str
) -> None:
    """The partition comes back at its committed offset 0: if offset 5 were taken in, 0 to 4 would be skipped."""
    service = service_with(registry)
    take_over(service, 0)
    service.calls.on_messages([message(UNKNOWN_YET, 5), message(KNOWN, 6)], lambda: None)
    await asyncio.wait_for(registry.asked.wait(), stretched(SECONDS))
    await give_up(service, how, 0)
    take_over(service, 0)
    registry.go.set()
    service.calls.on_messages([message(UNKNOWN_YET, 0), message(KNOWN, 1)], lambda: None)
    await eventually(lambda: service.engine.accounts.records >= 2, SECONDS)
    partition = service.engine.current(0)
    assert partition is not None
    assert [offset for offset in range(3) if offset in partition.offsets] == [0, 1]
    assert service.engine.accounts.records == 2


@pytest.mark.parametrize("how", ["revoked", "lost"])
async def test_messages_of_partitions_that_stay_are_still_decoded(registry: SlowRegistry, how: str) -> None:
    service = service_with(registry)
    take_over(service, 0, 1)
    done: list[bool] = []
    mixed = [message(UNKNOWN_YET, 0), message(UNKNOWN_YET, 0, partition=1), message(KNOWN, 1, partition=1)]
    service.calls.on_messages(mixed, lambda: done.append(True))
    await asyncio.wait_for(registry.asked.wait(), stretched(SECONDS))
    await give_up(service, how, 0)
    registry.go.set()
    await eventually(lambda: service.engine.accounts.records >= 2 and done, SECONDS)
    partition = service.engine.current(1)
    assert partition is not None
    assert partition.offsets.position == 2
    assert service.engine.accounts.records == 2
