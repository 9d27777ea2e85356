"""The stand-in's remote control, for tests and demos in other processes: everything under `/_stand_in/`.

In: GET received?offset=&limit= or ?newest=, counts, violations, metadata?kind=&id=&group=, healthz; POST faults,
keys, fields, reset (JSON bodies as the models below). Out: JSON (JSON lines for `received` and `violations`).
A body that cannot be used is answered 400 with what is wrong in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from flagpost_consumer.demo.pendo_stand_in.config import MetadataField
from flagpost_consumer.demo.pendo_stand_in.faults import OK, Fault
from flagpost_consumer.demo.pendo_stand_in.pendo import Pendo
from flagpost_consumer.demo.pendo_stand_in.traffic import Endpoint, Group, Kind

PREFIX = "/_stand_in/"
PAGE = 1_000
"""How many requests `received` returns without a limit."""


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VisitorOrder(_Order):
    """The steps for a visitor's next track requests."""

    steps: list[Fault | int] = []
    afterwards: Fault | int = OK


class MixOrder(_Order):
    """Random faults."""

    seed: int
    chances: list[tuple[float, Fault | int]]


class FaultsOrder(_Order):
    """The body of POST faults; what is left out does not change."""

    clear: bool = False
    """First forget everything scripted."""
    latency_seconds: float | None = None
    outages: dict[Endpoint, Fault | int | None] = {}
    """None restores the endpoint."""
    visitors: dict[str, VisitorOrder] = {}
    next: dict[Endpoint, list[Fault | int]] = {}
    mix: MixOrder | None = None
    failing_ids: dict[str, str] = {}
    poisoned_ids: list[str] = []


class KeysOrder(_Order):
    """The body of POST keys; what is left out does not change."""

    track_secret: str | None = None
    integration_key: str | None = None
    refused_status: int | None = None
    may_write: bool | None = None


_FIELDS = TypeAdapter(list[MetadataField])


class Control:
    """Answers requests under the prefix."""

    def __init__(self, pendo: Pendo) -> None:
        self._pendo = pendo
        self._known: dict[tuple[str, str], Callable[[web.BaseRequest, bytes], web.Response]] = {
            ("GET", "healthz"): lambda _request, _body: web.Response(text="ok\n"),
            ("GET", "received"): self._received,
            ("GET", "counts"): lambda _request, _body: _json(self._pendo.received.counts()),
            ("GET", "violations"): lambda _request, _body: _lines(self._pendo.received.violations),
            ("GET", "metadata"): self._metadata,
            ("POST", "faults"): self._faults,
            ("POST", "keys"): self._keys,
            ("POST", "fields"): self._fields,
            ("POST", "reset"): self._reset,
        }

    async def serve(self, request: web.BaseRequest, name: str) -> web.Response:
        """Carry out one request."""
        body = await request.content.read()
        order = self._known.get((request.method, name))
        if order is None:
            known = ", ".join(f"{method} {PREFIX}{known}" for method, known in self._known)
            return web.Response(
                status=404, text=f"no {request.method} {PREFIX}{name} here; there are {known}\n"
            )
        try:
            return order(request, body)
        except ValueError as error:  # pydantic's ValidationError is one
            return web.Response(status=400, text=f"{_wrong(error)}\n")

    def _received(self, request: web.BaseRequest, _body: bytes) -> web.Response:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", PAGE))
        received = self._pendo.received
        if "newest" in request.query:
            found = received.newest(int(request.query["newest"]))
        else:
            found = received.since(offset, limit)
        return _lines([each.as_json() for each in found])

    def _metadata(self, request: web.BaseRequest, _body: bytes) -> web.Response:
        kind, group = Kind(request.query.get("kind", "visitor")), Group(request.query.get("group", "custom"))
        return _json(self._pendo.metadata.values(kind, request.query.get("id", ""), group))

    def _faults(self, _request: web.BaseRequest, body: bytes) -> web.Response:
        order, faults = FaultsOrder.model_validate_json(body), self._pendo.faults
        if order.clear:
            faults.clear()
        if order.latency_seconds is not None:
            faults.latency_seconds = order.latency_seconds
        if order.mix is not None:
            faults.mix(order.mix.seed, order.mix.chances)
        faults.failing_ids.update(order.failing_ids)
        faults.poisoned_ids.update(order.poisoned_ids)
        self._scripts(order)
        return _json({})

    def _scripts(self, order: FaultsOrder) -> None:
        faults = self._pendo.faults
        for endpoint, outage in order.outages.items():
            if outage is None:
                faults.restore(endpoint)
            else:
                faults.outage(outage, endpoint)
        for visitor_id, script in order.visitors.items():
            faults.visitor(visitor_id, *script.steps, afterwards=script.afterwards)
        for endpoint, steps in order.next.items():
            faults.next(endpoint, *steps)

    def _keys(self, _request: web.BaseRequest, body: bytes) -> web.Response:
        changed = KeysOrder.model_validate_json(body).model_dump(exclude_none=True)
        self._pendo.keys = replace(self._pendo.keys, **changed)
        return _json({})

    def _fields(self, _request: web.BaseRequest, body: bytes) -> web.Response:
        self._pendo.metadata.declare(_FIELDS.validate_json(body))
        return _json({})

    def _reset(self, _request: web.BaseRequest, _body: bytes) -> web.Response:
        self._pendo.reset()
        return _json({})


def _wrong(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "\n".join(
        f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    )


def _json(content: object) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")


def _lines(contents: Sequence[object]) -> web.Response:
    body = b"".join(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE) for content in contents)
    return web.Response(body=body, content_type="application/jsonl")
