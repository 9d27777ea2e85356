"""Names, IPv6, TLS and proxies: the adapter reaches a server in the same ways as aiohttp's session."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp.connector
import aiohttp.resolver
import pytest
import uvloop
from yarl import URL

from certificates import Authority
from contract.exchanges import Case, compare, differs, same
from contract.scripted_server import Peer, Script, scripted
from contract.two_clients import NOT_SAID, MakeClient, adapter, session
from flagpost_consumer.adapters.http.headers import IDENTITY
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_settings.outbound import Outbound
from pendo_client import BODY
from pendo_client import client as pendo

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
PENDO = "pendo.test"
LOGIN = "flag%70ost:p%40ss%3Aword"

TAKEN = Answer(200, body=b"{}")
BROKEN = Answer(failure=Failure.BROKEN)
TIMEOUT = Answer(failure=Failure.TIMEOUT)
UNREACHABLE = Answer(failure=Failure.UNREACHABLE)
UNSENT = "what was not sent when its time was over cannot have been seen (decision 20)"

Run = Callable[[Any], None]
ON_EVERY_LOOP = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@pytest.fixture(autouse=True)
def no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def trusting(authority: Authority) -> Outbound:
    return Outbound("pendo", ca_file=str(authority.file))


async def answers(peer: Peer) -> None:
    """Answers every request."""
    while True:
        await peer.request()
        await peer.say(OK)


async def closes(peer: Peer) -> None:
    """Answers one request, and ends the connection."""
    await peer.request()
    await peer.say(OK)
    await peer.finish()


# TLS


async def without_a_goodbye(peer: Peer) -> None:
    """Ends a body with the end of the connection, without TLS's close_notify."""
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\n{}")
    await peer.reset()


@ON_EVERY_LOOP
@pytest.mark.parametrize("script", [answers, without_a_goodbye])
def test_tls(authority: Authority, trusting: Outbound, script: Script, run: Run) -> None:
    case = same(script, TAKEN, 1 if script is answers else 2)

    async def history() -> None:
        async with scripted(script, context=authority.server_context("localhost")) as server:
            await compare(case, server, f"https://localhost:{server.port}", trusting)

    run(history())


@ON_EVERY_LOOP
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_is_not_trusted(
    authority: Authority, trusting: Outbound, tmp_path: Path, wrong: str, run: Run
) -> None:
    signing = Authority(tmp_path, "another CA") if wrong == "authority" else authority
    context = signing.server_context("localhost" if wrong == "authority" else "elsewhere.test")

    async def history() -> None:
        async with scripted(answers, context=context) as server:
            case = same(answers, UNREACHABLE, 0)
            await compare(case, server, f"https://localhost:{server.port}", trusting)

    run(history())


@ON_EVERY_LOOP
def test_a_server_that_wants_our_certificate(authority: Authority, trusting: Outbound, run: Run) -> None:
    """With TLS 1.3 the server says so after the client's handshake has ended and the request has been sent."""
    context = authority.server_context("localhost", asks_clients=True)

    async def history() -> None:
        async with scripted(answers, context=context) as server:
            await compare(same(answers, BROKEN, 0), server, f"https://localhost:{server.port}", trusting)

    run(history())


async def hello_then_nothing(peer: Peer) -> None:
    await peer.greeting()
    await peer.finish()


async def hello_then_reset(peer: Peer) -> None:
    await peer.greeting()
    await peer.reset()


async def hello_then_plain_http(peer: Peer) -> None:
    await peer.greeting()
    await peer.say(OK)
    await peer.hung_up()


async def hello_then_silence(peer: Peer) -> None:
    await peer.greeting()
    await peer.hold()


HANDSHAKES: dict[str, Case] = {
    "closed": same(hello_then_nothing, UNREACHABLE, 2),
    "reset": same(hello_then_reset, UNREACHABLE, 2),
    "plain http": same(hello_then_plain_http, UNREACHABLE, 2),
    "silence": differs(hello_then_silence, UNREACHABLE, TIMEOUT, UNSENT, connections=(2, 2)),
}


@ON_EVERY_LOOP
@pytest.mark.parametrize("case", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_a_handshake_that_fails(trusting: Outbound, case: Case, run: Run) -> None:
    async def history() -> None:
        async with scripted(case.script) as server:
            await compare(case, server, f"https://localhost:{server.port}", trusting)

    run(history())


# Proxies


def tunnel(context: ssl.SSLContext, *extra: bytes) -> Script:
    """A proxy's tunnel; the proxy itself is the server at its end."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(ESTABLISHED, *extra)
        await peer.start_tls(context)
        await answers(peer)

    return script


def by_header(request: bytes) -> tuple[bytes, frozenset[tuple[bytes, bytes]]]:
    """A request in a form that ignores the order of its headers.

    The adapter puts a proxy's login before the other headers, the session after them.
    """
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = (line.split(b": ", 1) for line in lines)
    return first + body, frozenset((name.lower(), value) for name, value in headers)


@ON_EVERY_LOOP
@pytest.mark.parametrize("login", ["", f"{LOGIN}@"])
def test_a_tunnel(
    authority: Authority, trusting: Outbound, monkeypatch: pytest.MonkeyPatch, login: str, run: Run
) -> None:
    """CONNECT and the requests in the tunnel are the same on the wire."""

    async def history() -> None:
        script = tunnel(authority.server_context(PENDO))
        async with scripted(script) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{login}127.0.0.1:{server.port}")
            wire = by_header if login else bytes
            await compare(same(script, TAKEN), server, f"https://{PENDO}", trusting, wire)
            connect, *requests = server.connections[0]
        assert connect.startswith(b"CONNECT pendo.test:443 HTTP/1.1\r\nHost: pendo.test\r\n")
        assert (b"authorization" in connect.lower()) is bool(login)
        assert len(requests) == 2
        assert not any(b"authorization" in request.lower() for request in requests)

    run(history())


def refuses(*said: bytes) -> Script:
    """A proxy that answers CONNECT with these bytes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*said)
        await peer.finish()

    return script


async def silent_proxy(peer: Peer) -> None:
    await peer.request()
    await peer.hold()


async def resetting_proxy(peer: Peer) -> None:
    await peer.request()
    await peer.reset()


REFUSALS: dict[str, Case] = {
    "407": same(refuses(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"), UNREACHABLE, 2),
    "502 with a page": same(refuses(b"HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\n{}"), UNREACHABLE, 2),
    "no HTTP": same(refuses(b"no HTTP at all\r\n\r\n"), UNREACHABLE, 2),
    "a length that is none": same(
        refuses(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), UNREACHABLE, 2
    ),
    "no end of the head": same(refuses(b"HTTP/1.1 200 OK\r\n"), UNREACHABLE, 2),
    "nothing": same(refuses(), UNREACHABLE, 2),
    "a tunnel to nobody": same(refuses(ESTABLISHED), UNREACHABLE, 2),
    "a tunnel to no TLS": same(refuses(ESTABLISHED, b"HTTP/1.1 400 Bad\r\n\r\n"), UNREACHABLE, 2),
    "a reset": same(resetting_proxy, UNREACHABLE, 2),
    "silence": differs(silent_proxy, UNREACHABLE, TIMEOUT, UNSENT, connections=(2, 2)),
}


@ON_EVERY_LOOP
@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_proxy_that_makes_no_tunnel(
    trusting: Outbound, monkeypatch: pytest.MonkeyPatch, case: Case, run: Run
) -> None:
    async def history() -> None:
        async with scripted(case.script) as server:
            monkeypatch.setenv("HTTPS_PROXY", server.url)
            await compare(case, server, f"https://{PENDO}", trusting)

    run(history())


async def asks_who_we_are(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.say(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")


FORWARDED: dict[str, Case] = {
    "an answer": same(answers, TAKEN),
    "an end after each answer": same(closes, TAKEN, 2),
    "407": differs(
        asks_who_we_are, UNREACHABLE, Answer(407), "the proxy says it for itself: Pendo has seen nothing",
        connections=(1, 1),
    ),
}  # fmt: skip


@ON_EVERY_LOOP
@pytest.mark.parametrize("login", ["", f"{LOGIN}@"])
@pytest.mark.parametrize("case", FORWARDED.values(), ids=FORWARDED.keys())
def test_plain_http_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, case: Case, login: str, run: Run
) -> None:
    async def history() -> None:
        async with scripted(case.script) as server:
            monkeypatch.setenv("HTTP_PROXY", f"http://{login}127.0.0.1:{server.port}")
            wire = by_header if login else bytes
            await compare(case, server, f"http://{PENDO}", Outbound("pendo"), wire)
            assert server.connections[0][0].startswith(b"POST http://pendo.test/data/track HTTP/1.1\r\n")

    run(history())


@ON_EVERY_LOOP
@pytest.mark.parametrize("exempt", ["localhost", "*", "example.com, localhost"])
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, exempt: str, run: Run) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exempt)

    async def history() -> None:
        async with scripted(answers) as server:
            await compare(same(answers, TAKEN), server, f"http://localhost:{server.port}", Outbound("pendo"))

    run(history())


# Addresses


@ON_EVERY_LOOP
def test_ipv6(run: Run) -> None:
    async def history() -> None:
        async with scripted(answers, host="::1") as server:
            url = f"http://[::1]:{server.port}"
            await compare(same(answers, TAKEN), server, url, Outbound("pendo"))
            assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in server.connections[0][0]

    if not has_ipv6():
        if "CI" in os.environ:
            pytest.fail("this machine has no IPv6")
        pytest.skip("this machine has no IPv6")
    run(history())


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    with socket.socket(socket.AF_INET6) as probe, suppress(OSError):
        probe.bind(("::1", 0))
        return True
    return False


class Names:
    """Answers the clients' name look-ups, and sets the clock by which aiohttp remembers them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address = "127.0.0.1"
        self.seconds = 1_000.0
        self.asked = 0
        monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", self._resolve)
        monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: self.seconds)

    async def _resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        del family
        self.asked += 1
        return [
            {
                "hostname": host,
                "host": self.address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]


REMEMBERED_SECONDS = 10.0
"""How long aiohttp remembers addresses by default."""


@ON_EVERY_LOOP
@pytest.mark.parametrize("make", [adapter, session])
def test_addresses_that_change(monkeypatch: pytest.MonkeyPatch, make: MakeClient, run: Run) -> None:
    """An open connection keeps its address; a new one goes to the new address once the old one is forgotten."""
    names = Names(monkeypatch)

    async def history() -> None:
        async with AsyncExitStack() as open_now:
            old = await open_now.enter_async_context(scripted(closes_at_second))
            new = await open_now.enter_async_context(scripted(answers, host="127.0.0.2", port=old.port))
            url = f"http://{PENDO}:{old.port}"
            client = await open_now.enter_async_context(make(url, Outbound("pendo")))
            assert await client.post(BODY) == TAKEN
            names.address = "127.0.0.2"
            names.seconds += REMEMBERED_SECONDS + 1.0
            assert await client.post(BODY) == TAKEN
            await old.at_rest()
            assert (len(old.connections), len(new.connections), names.asked) == (1, 0, 1)
            assert await client.post(BODY) == TAKEN
            assert (len(old.connections), len(new.connections), names.asked) == (1, 1, 2)

    run(history())


async def closes_at_second(peer: Peer) -> None:
    """Answers two requests, and ends the connection."""
    await peer.request()
    await peer.say(OK)
    await closes(peer)


# Documents


@ON_EVERY_LOOP
def test_a_get_request_is_the_same_on_the_wire_as_the_sessions(run: Run) -> None:
    async def history() -> None:
        async with scripted(answers) as server:
            async with pendo(server.url) as (http, _):
                assert await http.get_json("/api/v1/metadata/schema/visitor?x=a%20b") == b"{}"
            headers = {**IDENTITY, "x-pendo-integration-key": "api-key"}
            async with (
                aiohttp.ClientSession(headers=headers, skip_auto_headers=NOT_SAID) as made,
                made.get(
                    URL(f"{server.url}/api/v1/metadata/schema/visitor?x=a%20b", encoded=True)
                ) as response,
            ):
                assert await response.read() == b"{}"
            (ours,), (theirs,) = server.connections
            assert ours == theirs

    run(history())
