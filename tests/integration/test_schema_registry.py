"""The registry client against a real registry, and against servers that answer differently."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from flagpost_consumer.adapters.registry import schema_registry as adapter
from flagpost_consumer.adapters.registry.errors import (
    RegistryNotAnswering,
    SchemaDoesNotExist,
    SchemaRefused,
    SchemaUnusable,
)
from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry
from flagpost_consumer.settings import SchemaRegistrySettings, Secret
from real_kafka.registry import SchemaRegistry as RealRegistry
from served import served

SCHEMA = '{"type":"record","name":"Seen","fields":[{"name":"at","type":"long"}]}'
Handler = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def _serving(handle: Handler) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return handle(request)

    app = web.Application()
    app.router.add_get("/api/schemas/ids/{id}", answer)
    async with served(app) as url:
        yield f"{url}/api"


def _json(body: object, status: int = 200) -> Handler:
    return lambda _: web.json_response(body, status=status)


async def _fetch(url: str, settings: SchemaRegistrySettings | None = None, schema_id: int = 7) -> str:
    async with SchemaRegistry(url, settings or SchemaRegistrySettings()) as registry:
        return await registry.fetch(schema_id)


@pytest.mark.kafka_core
@pytest.mark.registry
async def test_a_real_registry_returns_what_was_registered(
    schema_registry: RealRegistry, fresh_name: Callable[[str], str]
) -> None:
    schema_id = await asyncio.to_thread(schema_registry.register, fresh_name("subject"), SCHEMA)
    assert json.loads(await _fetch(schema_registry.url, schema_id=schema_id)) == json.loads(SCHEMA)


@pytest.mark.kafka_core
@pytest.mark.registry
async def test_a_real_registry_says_that_an_id_does_not_exist(schema_registry: RealRegistry) -> None:
    with pytest.raises(SchemaDoesNotExist, match="999999"):
        await _fetch(schema_registry.url, schema_id=999_999)


@pytest.mark.kafka_core
@pytest.mark.registry
async def test_a_wrong_path_at_a_real_registry_is_reported_as_such(schema_registry: RealRegistry) -> None:
    with pytest.raises(SchemaRefused, match=r"kafka\.schema_registry\.url") as refused:
        await _fetch(f"{schema_registry.url}/elsewhere")
    assert not isinstance(refused.value, SchemaDoesNotExist)


async def test_the_schema_is_returned_unchanged() -> None:
    async with _serving(_json({"schema": SCHEMA})) as url:
        assert await _fetch(url + "/") == SCHEMA


async def test_an_unknown_id_does_not_exist() -> None:
    async with _serving(_json({"error_code": 40403, "message": "Schema not found"}, 404)) as url:
        with pytest.raises(SchemaDoesNotExist, match="no schema with id 7"):
            await _fetch(url)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            _json({"error_code": 404, "message": "HTTP 404 Not Found"}, 404),
            "not in a schema registry's words",
        ),
        (_json({"error_code": 0, "message": "Could not find resource"}, 404), "not in a schema registry's"),
        (lambda _: web.Response(text="<html>", status=404), "not in a schema registry's words"),
        (_json({"error_code": 40301}, 403), "status 403 of the registry: a missing right"),
        (_json({}, 403), "a missing right"),
        (_json({"error_code": 42201}, 422), "status 422"),
        (_json({}, 400), "status 400"),
        (_json({}, 410), "status 410"),
    ],
)
async def test_any_4xx_about_the_id_is_a_refusal_and_only_the_registrys_404_means_no_schema(
    answer: Handler, says: str
) -> None:
    """Before, an id refused without a known error code was requested without end, and every partition waited."""
    async with _serving(answer) as url:
        with pytest.raises(SchemaRefused, match=says) as refused:
            await _fetch(url)
    assert not isinstance(refused.value, SchemaDoesNotExist)


@pytest.mark.parametrize(
    "answer",
    [
        _json({"error_code": 50001}, 500),
        _json({}, 503),
        _json({"error_code": 40101}, 401),
        _json({}, 407),
        _json({}, 408),
        _json({}, 425),
        _json({}, 429),
        _json({"id": 7}),
        _json([SCHEMA]),
        lambda _: web.Response(text="<html>"),
        lambda _: web.Response(status=302, headers={"location": "/elsewhere"}),
    ],
)
async def test_anything_else_is_no_answer(answer: Handler) -> None:
    async with _serving(answer) as url:
        with pytest.raises(RegistryNotAnswering):
            await _fetch(url)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"schema": "message A {}", "schemaType": "PROTOBUF"}, "PROTOBUF, not Avro"),
        ({"schema": "{}", "schemaType": ["\x1b" * 100]}, "not Avro"),
        ({"schema": SCHEMA, "references": [{"name": "x", "subject": "x", "version": 1}]}, "refers to others"),
    ],
)
async def test_schemas_that_no_record_can_be_read_with_are_unusable(answer: object, says: str) -> None:
    async with _serving(_json(answer)) as url:
        with pytest.raises(SchemaUnusable, match=says) as unusable:
            await _fetch(url)
    assert str(unusable.value).isprintable()


async def test_a_registry_that_does_not_listen_is_no_answer() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(RegistryNotAnswering):
            await _fetch(f"http://127.0.0.1:{unheard.getsockname()[1]}")


async def test_the_wait_for_an_answer_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "TIMEOUT_SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RegistryNotAnswering, match="no answer within"):
            await _fetch(f"http://127.0.0.1:{silent.getsockname()[1]}")


async def test_user_and_password_are_sent_and_a_new_password_is_read(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(request: web.Request) -> web.StreamResponse:
        seen.append(base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode())
        return web.json_response({"schema": SCHEMA})

    file = tmp_path / "password"
    settings = SchemaRegistrySettings(username="flagpost", password_file=str(file))
    async with _serving(note) as url:
        for password in ("eins", "zwö"):
            file.write_text(f"{password}\n")
            await _fetch(url, settings)
        await _fetch(url, SchemaRegistrySettings(username="u", password=Secret("p")))
    assert seen == ["flagpost:eins", "flagpost:zwö", "u:p"]


async def test_a_missing_password_file_counts_as_no_answer(tmp_path: Path) -> None:
    settings = SchemaRegistrySettings(username="u", password_file=str(tmp_path / "none"))
    async with _serving(_json({"schema": SCHEMA})) as url:
        with pytest.raises(RegistryNotAnswering, match="password_file"):
            await _fetch(url, settings)
