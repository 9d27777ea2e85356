"""One case of the contract: what a server does with two requests, and what each client must return.

In: a case. Out: an AssertionError, unless each client returned what the case says and both sent the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from contract.scripted_server import Script, ScriptedServer, scripted
from contract.two_clients import Client, MakeClient, adapter, session
from deadlines import stretched
from flagpost_consumer.adapters.pendo.http import DIRECT
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_settings.outbound import Outbound
from pendo_client import BODY, GENEROUS_SECONDS


@dataclass(frozen=True, slots=True)
class Seen:
    """What one client returned for two requests, one after the other."""

    first: Answer
    second: Answer
    connections: int
    """How many connections the two requests took: one, if it could be used again."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a server does, and what each client must return."""

    script: Script
    adapter: Seen
    session: Seen
    why: str
    """Why the adapter differs from the session; empty if it does not."""
    body: bytes


def same(
    script: Script, first: Answer, connections: int = 1, *, second: Answer | None = None, body: bytes = BODY
) -> Case:
    """A case in which both clients return the same; `second` is the same as `first` if not given."""
    seen = Seen(first, second or first, connections)
    return Case(script, seen, seen, "", body)


def differs(
    script: Script,
    ours: Answer,
    theirs: Answer,
    why: str,
    *,
    connections: tuple[int, int],
    body: bytes = BODY,
) -> Case:
    """A case in which the adapter returns `ours` for both requests, the session `theirs`; `connections` of each."""
    return Case(script, Seen(ours, ours, connections[0]), Seen(theirs, theirs, connections[1]), why, body)


async def hold_to(case: Case) -> None:
    """Check a case with both clients, one after the other, on the same server."""
    async with scripted(case.script) as server:
        await compare(case, server, server.url, DIRECT)


async def compare(
    case: Case,
    server: ScriptedServer,
    url: str,
    outbound: Outbound,
    wire: Callable[[bytes], object] = bytes,
) -> None:
    """Check a case with both clients at a URL that leads to the server; `wire`: the part of a request to compare."""
    ours = await _exchange(adapter, server, case.adapter, case.body, url, outbound)
    theirs = await _exchange(session, server, case.session, case.body, url, outbound)
    if case.why:
        assert case.adapter != case.session, "the case says that they differ"
        assert {*map(wire, chain(*ours))} == {*map(wire, chain(*theirs))}, "the same bytes"
    else:
        assert [[*map(wire, sent)] for sent in ours] == [[*map(wire, sent)] for sent in theirs], (
            "the same bytes, and on the same connections"
        )


async def _exchange(
    make: MakeClient, server: ScriptedServer, expected: Seen, body: bytes, url: str, outbound: Outbound
) -> list[list[bytes]]:
    """What one client sent, by connection, after a check that it returned what was expected."""
    server.connections = []
    async with make(url, outbound) as client:
        first = await post(client, server, body, expected.first)
        second = await post(client, server, body, expected.second)
        # Only the adapter describes a failure.
        seen = Seen(first._replace(detail=""), second._replace(detail=""), len(server.connections))
        assert seen == expected, f"{seen}, not {expected}"
    return server.connections


async def post(client: Client, server: ScriptedServer, body: bytes, expected: Answer) -> Answer:
    """Make one request; it times out once nothing more can come and the adapter has received what is expected."""
    server.held.clear()
    posting = asyncio.create_task(client.post(body))
    holding = asyncio.create_task(server.held.wait())
    async with asyncio.timeout(stretched(GENEROUS_SECONDS)):
        await asyncio.wait({posting, holding}, return_when=asyncio.FIRST_COMPLETED)
        if not posting.done():
            await client.time_is_over(expected)
        answer = await posting
        await server.at_rest()
    holding.cancel()
    with suppress(asyncio.CancelledError):
        await holding
    return answer
