"""The HTTP ports of every program of ours: what any stranger may open, and how little that costs.

In: a function from requests to answers, an address, bounds. Out: a listening server. Whoever has not shown a key gets
little: headers have a length and a time, connections a number, answers a time to be read. What is malformed gets one
fixed answer, is counted, and none of it is logged. Used by the gateway (both ports) and the consumer (admin port).
Needs aiohttp, orjson and structlog, which flagpost-publisher's extra `gateway` and flagpost-consumer bring along.

- `server`: listens, and answers with what it is given;
- `connection`: one connection of aiohttp's, with the bounds;
- `crowd`: which connections may be open, and which is dropped for a new one; `drops`: what is told of those;
- `addresses`: who is behind an address or a proxy.
"""

from importlib.util import find_spec

if find_spec("aiohttp") is None:
    raise ModuleNotFoundError("flagpost_http needs aiohttp: pip install 'aiohttp>=3.14,<4'", name="aiohttp")
