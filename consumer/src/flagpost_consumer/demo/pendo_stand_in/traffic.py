"""A request as it arrived, and the answer to send.

In: nothing. Out: the types that the stand-in's decisions (pendo.py) and its server (server.py) share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote


class Endpoint(StrEnum):
    """A part of Pendo's API that can fail on its own."""

    TRACK = "track"
    METADATA = "metadata"
    SCHEMA = "schema"
    TOKEN = "token"  # noqa: S105  the name of an endpoint
    AGGREGATION = "aggregation"
    DETAILS = "details"
    """Pendo's data on one visitor or account."""


class Kind(StrEnum):
    """Whose metadata it is."""

    VISITOR = "visitor"
    ACCOUNT = "account"


class Group(StrEnum):
    """The group of metadata fields that can be written through the API."""

    CUSTOM = "custom"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Route:
    """The meaning of a method and a path."""

    endpoint: Endpoint
    kind: Kind = Kind.VISITOR
    group: Group = Group.CUSTOM
    id: str = ""
    """The id whose details are requested."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, read to its end."""

    route: Route
    path: str
    """As sent, including the query."""
    presented_key: str = field(repr=False)
    content_type: str
    body: bytes
    at_seconds: float
    """When its head was read, on the monotonic clock."""
    wall_ms: int
    """The same moment, epoch milliseconds."""


class Ending(StrEnum):
    """How a request ends."""

    ANSWER = "answer"
    HANG = "hang"
    """No answer; the connection stays open until the client closes it."""
    CLOSE = "close"
    """The connection is closed without an answer."""
    NOT_HTTP = "not_http"
    """Bytes that are not HTTP, then the connection is closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server has to do."""

    ending: Ending
    status: int
    """0 unless the ending is an answer."""
    body: bytes
    headers: Mapping[str, str]
    delay_seconds: float
    ids_held: frozenset[str]
    """Metadata ids that count as in flight until this answer is sent."""


def routes() -> dict[tuple[str, str], Route]:
    """Every method and path of Pendo's API that the stand-in knows."""
    known = {
        ("POST", "/data/track"): Route(Endpoint.TRACK),
        ("GET", "/api/v1/token/verify"): Route(Endpoint.TOKEN),
        ("POST", "/api/v1/aggregation"): Route(Endpoint.AGGREGATION),
    }
    for kind in Kind:
        known["GET", f"/api/v1/metadata/schema/{kind}"] = Route(Endpoint.SCHEMA, kind)
        for group in Group:
            path = f"/api/v1/metadata/{kind}/{group}/value"
            known["POST", path] = Route(Endpoint.METADATA, kind, group)
    return known


def details_route(method: str, path: str) -> Route | None:
    """`GET /api/v1/visitor/ID` or `/api/v1/account/ID`, the id percent-encoded; None: another path."""
    for kind in Kind:
        identity = path.removeprefix(f"/api/v1/{kind}/")
        if method == "GET" and identity not in (path, "") and "/" not in identity:
            return Route(Endpoint.DETAILS, kind, id=unquote(identity))
    return None
