"""Whatever Pendo answers: statuses, Retry-After, bodies of any shape, and bytes that are not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deadlines import stretched
from engine_world import START_MS, World, decision
from example_counts import examples
from flagpost_consumer.adapters.http.answers import MAX_ANSWER_BYTES
from flagpost_consumer.adapters.pendo.address import PendoAddress
from flagpost_consumer.adapters.pendo.fields import GROUPS, parse_schema
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.commands.check.pendo import check_pendo
from flagpost_consumer.commands.check.results import Check
from flagpost_consumer.core.metadata.answers import read_errors
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import (
    MAX_RETRY_AFTER_SECONDS,
    Answer,
    Failure,
    Verdict,
    judge,
    retry_after_seconds,
)
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits, Policy
from flagpost_consumer.settings import Settings
from flagpost_schemas import MetadataValue, VisitorMetadata
from newest_sample import sample_read

IDS = ["v1", "v2", "7", "ü"]
NAMES = st.sampled_from(
    ["errors", "missing", "failed", "total", "index", "id", "visitorId", "accountId", "error", "message", "reason",
     "custom", "agent", "DisplayName", "displayName", "valid", "writeAccess", "x"]
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(IDS)
    | st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 5) | st.text(st.characters(codec="utf-8"), max_size=300)
)  # fmt: skip
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
BODIES = st.binary(max_size=200) | DOCUMENTS.map(orjson.dumps) | st.sampled_from(
    [b"[" * 100_000, b'{"errors":' * 2_000, b"\xff\xfe", b"", b"null", b"x" * 100_000, b'{"failed":1e400}']
)  # fmt: skip
RETRY_AFTERS = st.none() | st.text(max_size=40) | st.sampled_from(
    ["-1", "1e9", "9" * 500, "٣", "²", "0.5", "nan", " 7 ", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 99 Foo 0 99:99:99",
     "Mon, 01 Jan 0001 00:00:00 +9999", "Sun Nov  6 08:49:37 1994", "06 Nov 94 08:49 -9999999999",
     "1 Jan 99999999999"]
)  # fmt: skip
ANSWERS = st.builds(
    Answer,
    st.integers(0, 1_000) | st.sampled_from([200, 202, 204, 207, 302, 400, 401, 403, 404, 408, 422, 429, 503]),
    RETRY_AFTERS,
    BODIES,
) | st.sampled_from(Failure).map(lambda failure: Answer(failure=failure))  # fmt: skip


@given(ANSWERS, st.integers(0, 2**45))
def test_every_answer_has_a_verdict_and_a_wait_within_bounds(answer: Answer, now_ms: int) -> None:
    verdict = judge(answer)
    assert (verdict is Verdict.DELIVERED) == (answer.status is not None and 200 <= answer.status < 300)
    seconds = retry_after_seconds(answer.retry_after, now_ms)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


@given(BODIES)
def test_errors_in_a_metadata_answer_are_read_only_for_our_records(body: bytes) -> None:
    errors = read_errors(body, IDS)
    assert set(errors.refused) <= set(IDS)
    assert 0 <= errors.unnamed <= len(IDS) - len(errors.refused)
    assert all(0 < len(detail) <= 300 and detail.isprintable() for detail in errors.refused.values())


@given(BODIES)
def test_a_schema_answer_is_read_as_names(body: bytes) -> None:
    groups = parse_schema(body)
    assert set(groups) <= set(GROUPS)
    for fields in groups.values():
        assert all(isinstance(name, str) for entry in fields.items() for name in entry)
        assert all(fields[api_name] == api_name for api_name in fields.values())


# The engine, with any answers


@given(seed=st.integers(0, 2**32), answers=st.lists(ANSWERS, min_size=1, max_size=40))
@settings(deadline=None, max_examples=examples(70))
def test_every_delivery_is_accounted_for_whatever_pendo_answers(seed: int, answers: list[Answer]) -> None:
    """Pendo answers at random for a while, and with 200 in the end."""
    left = list(answers)

    def answering(world: World, _: Attempt) -> tuple[Answer, float, float]:
        strange = left and world.random.random() < 0.7
        return left.pop() if strange else Answer(200), 0.001, world.random.uniform(0, 0.1)

    policy = Policy(
        delivery=DeliverySettings(visitor_interval_seconds=0.1, max_attempts=3),
        limits=EndpointLimits(max_connections=4, request_timeout_seconds=2.0, metadata_timeout_seconds=3.0),
    )
    world = World(policy, Random(seed), partitions=2, answering=answering)
    world.join()
    for number in range(30):
        visitor = IDS[number % len(IDS)]
        world.publish_at(number * 0.1, decision(visitor, f"flag-{number % 7}", occurred_at=START_MS + number))
        values: dict[str, MetadataValue] = {"role": str(number), "tags": ["a"]}
        event = VisitorMetadata(
            event_id=f"m{number}", occurred_at=START_MS + number, visitor_id=visitor, values=values
        )
        world.publish_at(number * 0.1, event)

    world.run()

    world.check_nothing_lost()
    world.check_spacing()
    assert {len(settlements) for settlements in world.settled.values()} == {1}
    for (settlement,) in world.settled.values():
        ending = settlement.ending
        assert ending.outcome is not Outcome.DEAD_LETTERED or (0 < len(ending.detail) <= 300)
        assert ending.detail.isprintable()


# Bytes that may be HTTP

HEADS = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Slow", b"HTTP/1.0 503", b"HTTP/9.9 200 OK", b"HTTP/1.1 099 ?",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 999999999999 OK",
    b"HTTP/1.1 -1 OK", b"ICY 200 OK", b"", b"\x16\x03\x01",
)  # fmt: skip
HEADERS = (
    b"Content-Length: 4", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 2, 4",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Retry-After: \xff\xfe", b"Location: http://[", b"Set-Cookie: \x00=1", b"Content-Type: text/html; charset=nope",
    b"Connection: upgrade", b"X: " + b"y" * 9_000, b": nameless", b"no colon",
)  # fmt: skip
CONTENTS = (
    b"",
    b"null",
    b"{}\r\n",
    b"4\r\nnull\r\n0\r\n\r\n",
    b"zz\r\n",
    b"ffffffffffffffffff\r\n",
    b"\x1f\x8b\x08\x00",
    b"\xff" * 50,
)
RESPONSES = st.builds(
    lambda head, headers, content: b"\r\n".join((head, *headers, b"", content)),
    st.sampled_from(HEADS),
    st.lists(st.sampled_from(HEADERS), max_size=3),
    st.sampled_from(CONTENTS) | st.binary(max_size=50),
)


async def answers_to(responses: list[bytes]) -> tuple[list[Answer], list[Check]]:
    """The HTTP client's answers and the checks of `flagpost check` if a server sends these bytes and hangs up."""
    left = list(responses)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # One of the checks only connects.
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop() if left else b"")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    answers: asyncio.Queue[Answer] = asyncio.Queue()
    http = PendoHttp(
        PendoAddress(url, url, "x-key", True, 5.0, 5.0), lambda _, answer, __: answers.put_nowait(answer)
    )
    http.open()
    http.set_secret(EndpointName.TRACK, "s")
    for number in range(len(responses)):
        http.start(Attempt(EndpointName.TRACK, b"{}", Ticket(f"v{number}", 1)))
    found = [await asyncio.wait_for(answers.get(), stretched(20)) for _ in responses]
    left.extend(responses)
    own = {"track_url": url, "api_url": url, "track_secret": "s", "integration_key": "k"}
    checks = await check_pendo(
        Settings.model_validate({"pendo": own, "metrics": {"flags": ["checkout"]}}), sample_read()
    )
    await http.close()
    server.close()
    return found, checks


@given(st.lists(RESPONSES, min_size=2, max_size=6))
@example([b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnull"])
@settings(deadline=None, max_examples=examples(70))
def test_whatever_bytes_come_each_request_has_one_answer(responses: list[bytes]) -> None:
    answers, checks = asyncio.run(answers_to(responses))
    for answer in answers:
        assert (answer.status is None) == (answer.failure is not None)
        assert len(answer.body) <= MAX_ANSWER_BYTES
    # The status line decides, whatever follows it.
    taken = sum(response.startswith(b"HTTP/1.1 200 OK") for response in responses)
    assert sum(answer.status == 200 for answer in answers) == taken
    assert len(checks) == 4
    assert all(check.detail and check.detail.isprintable() for check in checks)
