"""Any bytes that the gateway receives have one of the documented answers, never 500."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from example_counts import examples
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher.gateway import json_documents, native
from flagpost_publisher.gateway.bodies import Undoing
from flagpost_publisher.gateway.fronts import DocumentError, Reading
from flagpost_publisher.gateway.refusals import Refusal
from fronts_reading import read_by
from gateway_running import AUTHORIZED, RunningGateway

Result = TypeVar("Result")

PATHS = [
    "/v1/events", "/v1/track", "/v1/identify", "/v1/group", "/v1/page", "/v1/screen", "/v1/alias", "/v1/batch",
    "/v1/import", "/v1/webhooks/pendo",
]  # fmt: skip
TOPICS = {"flagpost.events": 2, "hooks": 1}
LIMIT = 20_000
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(
    ["", "track", "decision", "visitor", "account", "2026-11-21T10:00:00Z", "2026-11-21", "\ud800", 2**63, -1, 1e308,
     "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", 10**400]
)  # fmt: skip
NAMES = st.sampled_from(
    ["type", "event_id", "occurred_at", "account_id", "context", "consent", "source", "visitor_id", "flag_key",
     "enabled", "variation_key", "decision_event_dispatched", "attributes", "anonymous_id", "event", "properties",
     "group", "values", "ip", "userId", "messageId", "traits", "batch", "sentAt", "timestamp", "writeKey", "a", ""]
) | st.text(max_size=5)  # fmt: skip
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["decision", "track", "visitor", "account"])},
    optional={
        "visitor_id": SCALARS, "account_id": SCALARS, "event": SCALARS, "flag_key": SCALARS, "enabled": SCALARS,
        "decision_event_dispatched": SCALARS, "properties": DOCUMENTS, "values": DOCUMENTS, "occurred_at": SCALARS,
        "event_id": SCALARS, "context": DOCUMENTS, "consent": DOCUMENTS, "attributes": DOCUMENTS,
    },
)  # fmt: skip
BODIES = (
    st.binary(max_size=200)
    | (DOCUMENTS | EVENTS | st.lists(EVENTS, max_size=5)).map(lambda document: json.dumps(document).encode())
    | st.sampled_from([b" " * (LIMIT + 1), b"[" * LIMIT, b"[]", b'{"a":' * 5000, b"\xef\xbb\xbf{}"])
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/json", "APPLICATION/JSON; charset=x", "text/plain", "", "a/b;c"]
        ),
        "content-encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, gzip", ""]),
        "authorization": st.sampled_from(
            ["", "Bearer", "Basic", "Basic x", "Basic =", "Bearer x", "Basic eDp5"]
        ),
        "x-pendo-signature": st.sampled_from(["", "sha256=", "sha256=00"]),
    },
)


class Server:
    """A gateway that serves many examples; each request is awaited."""

    def __init__(self, runner: asyncio.Runner, gateway: RunningGateway, reader: Consumer) -> None:
        self._runner = runner
        self.gateway = gateway
        self._reader = reader

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """Send a request; returns the status and the answer's document."""
        status, answer, _ = self._runner.run(self.gateway.post(path, data=body, headers=headers))
        return status, answer

    def published(self) -> int:
        """How many records Kafka has, in all topics."""
        partitions = [TopicPartition(topic, n) for topic, count in TOPICS.items() for n in range(count)]
        return sum(self._reader.get_watermark_offsets(partition, 30)[1] for partition in partitions)


@asynccontextmanager
async def running_gateway() -> AsyncIterator[tuple[RunningGateway, Consumer]]:
    with EmbeddedKafka(TOPICS) as kafka:
        given = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "gateway.max_body_bytes": LIMIT,
            "gateway.webhook_secret": "a-shared-secret",
            "gateway.webhook_topic": "hooks",
        }
        async with RunningGateway(given) as gateway:
            await gateway.ready()
            reader = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "ends"})
            yield gateway, reader
            reader.close()
            assert await gateway.stop() == 0
            assert not [line for line in gateway.lines if "failed unexpectedly" in line]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield Server(runner, *runner.run(stack.enter_async_context(running_gateway())))
        finally:
            runner.run(stack.aclose())


def check_answer(status: int, answer: dict[str, Any]) -> None:
    """Check that an answer is a documented one, in the form for programs."""
    if status in {200, 202}:
        assert answer == {"success": True} or answer["accepted"] >= 1
        return
    assert status in {400, 401, 404, 408, 413, 415, 503}
    assert {"error", "index", "field"} <= answer.keys() <= {"error", "index", "field", "fix"}
    assert answer["error"]


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@given(st.sampled_from(PATHS), BODIES, HEADERS, st.sampled_from([{}, AUTHORIZED]))
@settings(deadline=None, max_examples=examples(150))
def test_any_request_has_a_documented_answer(
    server: Server, path: str, body: bytes, headers: dict[str, str], key: dict[str, str]
) -> None:
    usual = {"content-type": "application/json", **key}
    # With a key, a body that is declared as compressed is compressed; without a key, it is not.
    compress = COMPRESS.get(headers.get("content-encoding", ""), bytes) if key else bytes
    before = server.published()
    status, answer = server.post(path, compress(body), {**usual, **headers})
    check_answer(status, answer)
    if status not in {200, 202, 503}:
        assert server.published() == before


@given(st.lists(EVENTS, min_size=1, max_size=5))
@settings(deadline=None, max_examples=examples(150))
def test_any_event_is_published_or_refused_by_index_and_field(
    server: Server, events: list[dict[str, Any]]
) -> None:
    body = json.dumps(events).encode()
    headers = {**AUTHORIZED, "content-type": "application/json"}
    before = server.published()
    status, answer = server.post("/v1/events", body, headers)
    assume(status != 503)  # on a machine that is too busy even for the embedded broker
    if status == 202:
        assert answer == {"accepted": len(events)}
        assert server.published() == before + len(events)
        return
    assert status == 400
    assert server.published() == before
    assert answer["field"]
    assert answer["field"] == "body" or 0 <= answer["index"] < len(events)


@given(
    st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"POST /v1/events HTTP/1.1\r\n" + tail)
)
@settings(deadline=None, max_examples=examples(100))
def test_any_bytes_on_the_wire_are_answered_or_cut_off(server: Server, sent: bytes) -> None:
    host, port = server.gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert not answer or answer.split()[1] in {b"400", b"401", b"404", b"405"}


Given = TypeVar("Given")


def outcome(do: Callable[[Given], Result], given: Given) -> Result | DocumentError | Refusal:
    """The result, or the error that refuses the input; any other exception fails the test."""
    try:
        return do(given)
    except (DocumentError, Refusal) as refused:
        return refused


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=examples(200))
def test_any_bytes_are_a_document_or_a_refusal(body: bytes) -> None:
    for parse in (json_documents.strict, json_documents.tolerant):
        document = outcome(parse, body)
        if isinstance(document, DocumentError):
            assert (document.index, document.field) == (None, "body")
        else:
            assert json.dumps(document)


@given(DOCUMENTS | EVENTS | st.lists(DOCUMENTS | EVENTS, max_size=4))
@settings(deadline=None, max_examples=examples(200))
def test_any_document_is_events_or_a_refusal(document: object) -> None:
    reading = outcome(lambda given: read_by(native.read_events, given, 1_800_000_000_000), document)
    if isinstance(reading, Reading):
        assert len(reading.events) == (len(document) if isinstance(document, list) else 1)
    else:
        assert isinstance(reading, DocumentError)
        assert reading.index is not None or document == []


def undone(coding: str, chunk: bytes) -> bytes:
    undoing = Undoing(coding, 1000)
    whole = undoing.feed(chunk)
    undoing.finish()
    return whole


@given(st.sampled_from(list(COMPRESS)), st.binary(max_size=300), st.integers(0, 30))
@settings(deadline=None, max_examples=examples(200))
def test_any_bytes_are_decompressed_or_refused(coding: str, tail: bytes, cut: int) -> None:
    begun = COMPRESS[coding](b"x" * 500)[: -cut or None]
    for chunk in (tail, begun + tail):
        whole = outcome(lambda given: undone(coding, given), chunk)
        if isinstance(whole, Refusal):
            assert whole.status in {400, 413}
    assert cut or tail or undone(coding, begun) == b"x" * 500
