"""A TCP server that does what a script says, byte by byte, and keeps the requests that it received.

In: a script, which runs once for each connection. Out: the server's URL, and the requests of each connection as they
were on the wire. A script waits only for conditions: a request is here, the client has closed the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from pendo_client import GENEROUS_SECONDS, read_request
from running import eventually

Script = Callable[["Peer"], Awaitable[None]]

TURNS = 10
"""This many turns of the loop are enough to receive what is in a socket of this machine; see `turns`."""
ENDLESS_BYTES = 3_000_000
"""More than any limit of the adapter."""
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: closing resets the connection."""
END_OF_HEAD = b"\r\n\r\n"


class ScriptedServer:
    """One server, on a port of its own."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._peers: dict[asyncio.Task[None], Peer] = {}
        self.connections: list[list[bytes]] = []
        """The requests of each connection, as they were on the wire."""
        self.held = asyncio.Event()
        """Set when a script will send nothing more: a client that still waits would wait for ever."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script on a connection, until the script ends or the client closes the connection."""
        task = asyncio.current_task()
        assert task is not None
        requests: list[bytes] = []
        self.connections.append(requests)
        self._peers[task] = peer = Peer(self, reader, writer, requests)
        try:
            with suppress(asyncio.IncompleteReadError):
                await self._script(peer)
        except OSError:  # the client has closed the connection during the script, and may still wait
            if not peer.waits_for_a_request:
                await turns()
                self.held.set()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            del self._peers[task]

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing will happen before the next request."""
        return all(peer.waits_for_a_request for peer in self._peers.values())

    async def at_rest(self) -> None:
        """Wait until nothing will happen before the next request, and both ends have received all that was sent."""
        await turns()
        await eventually(lambda: self.is_at_rest, GENEROUS_SECONDS)
        await turns()

    async def end(self) -> None:
        """Wait until all scripts have ended; their clients have closed the connections."""
        await eventually(lambda: not self._peers, GENEROUS_SECONDS)


class Peer:
    """The server's end of one connection, as a script uses it."""

    def __init__(
        self,
        server: ScriptedServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: list[bytes],
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._requests = requests
        self.waits_for_a_request = False

    async def request(self) -> bytes:
        """Wait for a whole request. Raises IncompleteReadError if the client has closed the connection."""
        return await self._receive(read_request(self._reader))

    async def head(self) -> bytes:
        """Wait for the head of a request, and leave its body unread."""
        return await self._receive(self._reader.readuntil(END_OF_HEAD))

    async def greeting(self) -> None:
        """Wait for the client's first bytes, and discard them."""
        await self._reader.read(65_536)

    async def _receive(self, reading: Awaitable[bytes]) -> bytes:
        self.waits_for_a_request = True
        request = await reading
        self.waits_for_a_request = False
        self._requests.append(request)
        return request

    async def say(self, *pieces: bytes) -> None:
        """Send bytes; the client receives each piece separately."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            if len(pieces) > 1:
                await turns()

    async def flood(self, piece: bytes) -> None:
        """Send the same bytes until the client closes the connection; sets `held` after ENDLESS_BYTES."""
        said = 0
        while not self._writer.is_closing():
            self._writer.write(piece)
            await self._writer.drain()
            said += len(piece)
            if said > ENDLESS_BYTES:
                self._server.held.set()

    async def finish(self) -> None:
        """Close the sending side, and wait until the client has closed the connection."""
        self._writer.write_eof()
        await turns()
        await self.hold()

    async def hold(self) -> None:
        """Send nothing more, and wait until the client gives up."""
        self._server.held.set()
        await self.hung_up()

    async def hung_up(self) -> None:
        """Wait until the client has closed the connection."""
        while await self._reader.read(65_536):
            pass

    async def reset(self) -> None:
        """Reset the connection, once the client has received what was sent."""
        await turns()
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self._writer.transport.abort()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Continue over TLS, as the TLS server."""
        await self._writer.start_tls(context)


async def turns() -> None:
    """Let the client, which is on the same loop, receive what has been sent.

    On one machine sent bytes are in the receiver's socket at once, and each turn of a loop reads all sockets.
    """
    for _ in range(TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def scripted(
    script: Script, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """Run a server during the block; at its end all clients must have closed their connections."""
    server = ScriptedServer(script)
    listener = await asyncio.start_server(server.serve, host, port, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.end()
