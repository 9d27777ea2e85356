"""The gateway and a schema registry that does not cooperate; and the gateway's chores, one of which is to ask it."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher import registry as registry_module
from flagpost_publisher.errors import RegistryTrouble
from flagpost_publisher.gateway.chores import until_done
from flagpost_publisher.registry import Registry
from gateway_running import RunningGateway
from running import eventually

WAITING = "waiting for the schema registry"


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"flagpost.events": 1}) as running:
        yield running


@contextmanager
def registry(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A registry that answers as `answer` does; returns its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def say(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def gateway_with(kafka: EmbeddedKafka, url: str, **settings: object) -> RunningGateway:
    ours = {f"kafka.schema_registry.{name}": value for name, value in settings.items()}
    return RunningGateway(
        {"kafka.bootstrap_servers": kafka.bootstrap_servers, "kafka.schema_registry.url": url, **ours}
    )


# What the gateway makes of it


async def test_the_registrys_password_file_is_read_again_for_each_attempt(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Before the fix, it was read when the gateway started: a corrected password was never used."""
    right = "Basic " + b64encode(b"flagpost:new-password").decode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        known = request.headers["authorization"] == right
        say(request, 200 if known else 401, b'{"id":7}')

    file = tmp_path / "password"
    file.write_text("old-password")
    with registry(answer) as url:
        async with gateway_with(kafka, url, username="flagpost", password_file=str(file)) as gateway:
            await eventually(lambda: gateway.logged(WAITING))
            file.unlink()
            await eventually(lambda: "cannot be read" in gateway.logged(WAITING)[-1]["reason"])
            file.write_text("new-password\n")
            await gateway.ready()
            assert not [line for line in gateway.lines if "-password" in line]


async def test_the_user_of_a_file_of_kafkas_properties_is_the_registrys_too(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Before the fix, this property was used only if it was not in a file."""
    seen: set[str] = set()

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.add(request.headers["authorization"])
        say(request, 200, b'{"id":7}')

    file = tmp_path / "user"
    file.write_text("you:too")
    files = {"schema.registry.basic.auth.user.info": str(file)}
    with registry(answer) as url:
        settings = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.schema_registry.url": url,
            "kafka.properties_files": files,
        }
        async with RunningGateway(settings) as gateway:
            await gateway.ready()
    assert seen == {"Basic eW91OnRvbw=="}


@pytest.mark.parametrize("first", [b'{"id":5000000000}', b"[" * 100_000])
async def test_a_registry_is_asked_again_whatever_it_answered(kafka: EmbeddedKafka, first: bytes) -> None:
    """Before the fix, such an answer ended the asking without a log line: 503 until a restart."""
    well = threading.Event()
    with registry(lambda request: say(request, 200, b'{"id":7}' if well.is_set() else first)) as url:
        async with gateway_with(kafka, url) as gateway:
            await eventually(lambda: gateway.logged(WAITING))
            well.set()
            await gateway.ready()


async def test_a_stop_does_not_wait_for_a_registry_whose_answer_does_not_end(kafka: EmbeddedKafka) -> None:
    """Before the fix, the process ended only with the answer, hours after SIGTERM."""
    begun, over = threading.Event(), threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", "100000")
        request.end_headers()
        while not over.wait(0.1):
            request.wfile.write(b" ")
            begun.set()

    try:
        with registry(drip) as url:
            async with gateway_with(kafka, url) as gateway:
                await eventually(begun.is_set)
                assert await gateway.stop() == 0
    finally:
        over.set()


# What its client makes of it


@pytest.mark.parametrize(
    "answer", [{"id": 2**31}, {"id": 2**32}, {"id": -1}, {"id": "7"}, {"id": None}, [], {}]
)
async def test_an_id_that_no_registry_returns_is_no_answer(answer: object) -> None:
    """The consumer asks about none above 2^31 - 1, and events with one would be dead letters."""
    body = json.dumps(answer).encode()
    with registry(lambda request: say(request, 200, body)) as url, pytest.raises(RegistryTrouble):
        await asyncio.to_thread(Registry(url, {}).ids_for, "events")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_all_answers_together_must_come_within_a_time(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Before the fix, only the time between two bytes was limited."""
    monkeypatch.setattr(registry_module, "ANSWERS_SECONDS", 0.5)
    over = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head)
        while not over.wait(0.02):
            request.wfile.write(b" ")

    try:
        with registry(drip) as url, pytest.raises(RegistryTrouble, match="TimeoutError"):
            async with asyncio.timeout(stretched(20)):
                await asyncio.to_thread(Registry(url, {}).ids_for, "events")
    finally:
        over.set()


# Chores


async def test_a_chore_that_raises_is_logged_and_done_again() -> None:
    """Before the fix, the first unexpected error ended a chore for good, and nothing said so."""
    attempts = iter(range(4))

    async def attempt() -> bool:
        number = next(attempts)
        if number < 2:
            raise RuntimeError("v-secret")
        return number == 3

    with capture_logs() as lines:
        await until_done("the chore", attempt, pause_seconds=0)
    assert [(line["chore"], line["error"], line["log_level"]) for line in lines] == [
        ("the chore", "RuntimeError", "error")
    ]
    assert "v-secret" not in str(lines)
    assert next(attempts, None) is None
