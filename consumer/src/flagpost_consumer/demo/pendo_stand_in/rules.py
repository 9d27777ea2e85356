"""Pendo's rules for what it is sent, written separately from Flagpost's own so that each can reveal errors in the
other.

In: a content type and a body. Out: the parsed body, and each rule that it breaks. The rules are those of Pendo's
documentation of track events and of the metadata API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import orjson

from flagpost_consumer.demo.pendo_stand_in.traffic import Kind

PROPERTIES_BYTES_LIMIT = 512
"""The JSON of properties must be shorter than this."""
ANONYMOUS = "_PENDO_T_"
"""Ids of anonymous visitors begin with it, once."""
METADATA_RECORDS_LIMIT = 1_000
METADATA_VALUE_CHARACTERS = 1_500
PROCESSED_FOR_MS = 7 * 24 * 60 * 60 * 1_000
"""Pendo answers older events with 200 and ignores them."""


class Rule(StrEnum):
    """A rule that a request can break."""

    CONTENT_TYPE = "content_type"
    JSON = "json"
    MEMBERS = "members"
    TIMESTAMP = "timestamp"
    PROPERTY_NAME = "property_name"
    PROPERTY_VALUE = "property_value"
    PROPERTIES_SIZE = "properties_size"
    PACE = "pace"
    METADATA_COUNT = "metadata_count"
    METADATA_ID_TWICE = "metadata_id_twice"
    METADATA_ID_IN_FLIGHT = "metadata_id_in_flight"


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule broken."""

    rule: Rule
    detail: str
    id: str | None = None
    """The visitor or account, if known."""


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """The parsed members of a track request; members of the wrong type are None."""

    event: str | None
    visitor_id: str | None
    timestamp_ms: int | None
    flag_key: str | None
    variation_key: str | None

    @property
    def is_anonymous(self) -> bool:
        """Whether Pendo counts the visitor as anonymous (Pendo's help, "Anonymous visitors")."""
        return self.visitor_id is not None and self.visitor_id.startswith(ANONYMOUS)


@dataclass(frozen=True, slots=True)
class MetadataRecord:
    """One record of a metadata request, with its index in the array."""

    index: int
    id: str
    values: Mapping[str, object]


_NOTHING_READ = TrackEvent(None, None, None, None, None)


def read_track(content_type: str, body: bytes) -> tuple[TrackEvent, list[Breach]]:
    """Read a track request."""
    breaches = list(_content_type(content_type))
    event = _json(body)
    if not isinstance(event, dict):
        return _NOTHING_READ, [*breaches, Breach(Rule.JSON, "the body is not a JSON object")]
    breaches.extend(_track_members(event))
    breaches.extend(_properties(event.get("properties")))
    return _track_event(event), breaches


def _track_event(event: Mapping[str, object]) -> TrackEvent:
    properties = event.get("properties")
    decision = properties if isinstance(properties, dict) else {}
    timestamp = event.get("timestamp")
    return TrackEvent(
        _text(event.get("event")),
        _text(event.get("visitorId")),
        timestamp if type(timestamp) is int else None,
        _text(decision.get("flag_key")),
        _text(decision.get("variation_key")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _content_type(content_type: str) -> Iterator[Breach]:
    if content_type.split(";", 1)[0].strip().lower() != "application/json":
        yield Breach(Rule.CONTENT_TYPE, f"content-type is {content_type!r}, not application/json")


_TRACK_MEMBERS = {"type", "event", "visitorId", "accountId", "timestamp", "properties", "context"}
_CONTEXT_MEMBERS = {"ip", "userAgent", "url", "title"}


def _track_members(event: Mapping[str, object]) -> Iterator[Breach]:
    if event.get("type") != "track":
        yield Breach(Rule.MEMBERS, 'type is not "track"')
    for name in ("event", "visitorId"):
        if _text(event.get(name)) is None:
            yield Breach(Rule.MEMBERS, f"{name} is not a string with a character")
    if (_text(event.get("visitorId")) or "").startswith(2 * ANONYMOUS):
        yield Breach(Rule.MEMBERS, "visitorId has the prefix of anonymous visitors twice")
    if "accountId" in event and _text(event["accountId"]) is None:
        yield Breach(Rule.MEMBERS, "accountId is not a string with a character")
    if type(event.get("timestamp")) is not int:
        yield Breach(Rule.TIMESTAMP, "timestamp is not an integer (epoch milliseconds)")
    if unknown := event.keys() - _TRACK_MEMBERS:
        yield Breach(Rule.MEMBERS, f"unknown members: {', '.join(sorted(unknown))}")
    yield from _context(event.get("context"))


def _context(context: object) -> Iterator[Breach]:
    if not isinstance(context, dict):
        yield Breach(Rule.MEMBERS, "context is not an object")
        return
    if unknown := context.keys() - _CONTEXT_MEMBERS:
        yield Breach(Rule.MEMBERS, f"unknown members of context: {', '.join(sorted(unknown))}")
    for name in context.keys() & _CONTEXT_MEMBERS:
        if not isinstance(context[name], str):
            yield Breach(Rule.MEMBERS, f"context.{name} is not a string")


def _properties(properties: object) -> Iterator[Breach]:
    if not isinstance(properties, dict):
        yield Breach(Rule.MEMBERS, "properties is not an object")
        return
    size = len(orjson.dumps(properties))
    if size >= PROPERTIES_BYTES_LIMIT:
        yield Breach(
            Rule.PROPERTIES_SIZE, f"properties take {size} bytes, not under {PROPERTIES_BYTES_LIMIT}"
        )
    for name, value in properties.items():
        if wrong := _wrong_with_name(name):
            yield Breach(Rule.PROPERTY_NAME, f"property {name!r} {wrong}")
        if not isinstance(value, str | int | float):
            yield Breach(Rule.PROPERTY_VALUE, f"property {name!r} is not a string, a number or a boolean")


_NAME_RULES = (
    (re.compile(r"[A-Za-z0-9_]+", re.ASCII), "has characters other than letters, digits and underscore"),
    (re.compile(r"[^0-9].*", re.DOTALL), "begins with a digit"),
    (re.compile(r".{1,31}", re.DOTALL), "is not under 32 characters"),
    (re.compile(r"(?!__).*(?<!__)", re.DOTALL), "begins or ends with two underscores"),
    (re.compile(r"(?!error$).*", re.DOTALL), "is reserved"),
)


@lru_cache(maxsize=4096)
def _wrong_with_name(name: str) -> str:
    return " and ".join(wrong for pattern, wrong in _NAME_RULES if not pattern.fullmatch(name))


def id_member(kind: Kind) -> str:
    """The member of a metadata record that holds its id."""
    return f"{kind}Id"


def read_metadata(kind: Kind, content_type: str, body: bytes) -> tuple[list[MetadataRecord], list[Breach]]:
    """Read a metadata request: the records that can be read, each with its index."""
    breaches = list(_content_type(content_type))
    array = _json(body)
    if not isinstance(array, list) or not array:
        return [], [*breaches, Breach(Rule.JSON, "the body is not a JSON array with a record")]
    if len(array) > METADATA_RECORDS_LIMIT:
        detail = f"{len(array)} records, more than {METADATA_RECORDS_LIMIT}"
        breaches.append(Breach(Rule.METADATA_COUNT, detail))
    records = []
    for index, item in enumerate(array):
        record = _metadata_record(kind, index, item)
        if record is None:
            detail = f"record {index} is not exactly {id_member(kind)} (a string) and values (an object, not empty)"
            breaches.append(Breach(Rule.MEMBERS, detail))
        else:
            records.append(record)
            breaches.extend(_metadata_values(record))
    breaches.extend(_ids_twice(records))
    return records, breaches


def _metadata_record(kind: Kind, index: int, item: object) -> MetadataRecord | None:
    member = id_member(kind)
    if not isinstance(item, dict) or item.keys() != {member, "values"}:
        return None
    identity, values = _text(item[member]), item["values"]
    if identity is None or not isinstance(values, dict) or not values:
        return None
    return MetadataRecord(index, identity, values)


def _metadata_values(record: MetadataRecord) -> Iterator[Breach]:
    for name, value in record.values.items():
        texts = value if isinstance(value, list) else ()
        if isinstance(value, dict) or not all(isinstance(text, str) for text in texts):
            detail = f"record {record.index}: {name!r} is neither a scalar nor an array of strings"
            yield Breach(Rule.MEMBERS, detail, record.id)


def _ids_twice(records: list[MetadataRecord]) -> Iterator[Breach]:
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            detail = f"record {record.index} repeats an id of the same request"
            yield Breach(Rule.METADATA_ID_TWICE, detail, record.id)
        seen.add(record.id)


class Pace:
    """Checks the pace: two requests of one visitor may not arrive less than an interval apart.

    It remembers the visitors of at most two intervals.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._newer: dict[str, float] = {}
        self._older: dict[str, float] = {}
        self._turned_at = 0.0

    def arrive(self, visitor_id: str, now: float) -> Breach | None:
        """Note an arrival at `now` (seconds, monotonic); a breach if it came too soon after the one before."""
        if self._interval_seconds <= 0:
            return None
        if now - self._turned_at >= self._interval_seconds:
            self._older, self._newer, self._turned_at = self._newer, {}, now
        before = self._newer.get(visitor_id, self._older.get(visitor_id))
        self._newer[visitor_id] = now
        if before is None or now - before >= self._interval_seconds:
            return None
        detail = f"{now - before:.4f} s after the request before, not {self._interval_seconds} s"
        return Breach(Rule.PACE, detail, visitor_id)
