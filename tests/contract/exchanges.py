"""One case of the contract: what a server does to two requests, and what either client has to make of it.

In: a case. Out: that each client saw what the case says, and sent the same bytes.
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
    """What one client makes of two requests, one after the other."""

    first: Answer
    second: Answer
    connections: int
    """How many the two took: one, if it could be used again."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a server does, and what comes of it."""

    script: Script
    adapter: Seen
    session: Seen
    why: str
    """Why the adapter differs from the session; empty: it does not."""
    body: bytes


def same(
    script: Script, first: Answer, connections: int = 1, *, second: Answer | None = None, body: bytes = BODY
) -> Case:
    """Both clients make the same of it; the second answer is as the first, if not given."""
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
    """The adapter answers both requests with `ours`, the session with `theirs`; `connections` of either."""
    return Case(script, Seen(ours, ours, connections[0]), Seen(theirs, theirs, connections[1]), why, body)


async def hold_to(case: Case) -> None:
    """Both clients, one after the other, to the same server."""
    async with scripted(case.script) as server:
        await compare(case, server, server.url, DIRECT)


async def compare(
    case: Case,
    server: ScriptedServer,
    url: str,
    outbound: Outbound,
    wire: Callable[[bytes], object] = bytes,
) -> None:
    """Both clients, one after the other, to a URL behind which is the server; `wire`: what of a request is equal."""
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
    """What one client sent, by connection; it must have seen what was expected."""
    server.connections = []
    async with make(url, outbound) as client:
        first = await post(client, server, body, expected.first)
        second = await post(client, server, body, expected.second)
        # What a failure is told as is the adapter's alone.
        seen = Seen(first._replace(detail=""), second._replace(detail=""), len(server.connections))
        assert seen == expected, f"{seen}, not {expected}"
    return server.connections


async def post(client: Client, server: ScriptedServer, body: bytes, expected: Answer) -> Answer:
    """One request; its time is over once nothing more can come, and the adapter has received what is expected."""
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
