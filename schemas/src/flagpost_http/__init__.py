"""The HTTP ports of all our programs: what any stranger may open, and how little that costs.

In: a function from requests to answers, an address, limits. Out: a listening server. Clients without a key get
little: headers are limited in length and time, connections in number, answers in the time to be read. Malformed
requests get one fixed answer, are counted, and none of their content is logged. Used by the gateway (both ports) and
the consumer (admin port). Needs aiohttp, orjson and structlog, which flagpost-publisher's extra `gateway` and
flagpost-consumer install.

- `server`: listens and answers;
- `connection`: one aiohttp connection, with the limits;
- `crowd`: which connections may be open, and which is dropped for a new one; `drops`: counts and logs those;
- `addresses`: the client behind an address or a proxy.
"""

from importlib.util import find_spec

if find_spec("aiohttp") is None:
    raise ModuleNotFoundError("flagpost_http needs aiohttp: pip install 'aiohttp>=3.14,<4'", name="aiohttp")
