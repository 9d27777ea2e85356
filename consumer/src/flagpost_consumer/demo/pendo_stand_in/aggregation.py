"""Pendo's aggregation endpoint, as far as `flagpost reconcile --pendo` uses it.

In: a request's body, and what was received. Out: the rows of its pipeline, or what is wrong with it. Two pipelines
are understood: source `trackTypes` (every event name with its id), and source `trackEvents` of one `trackTypeId` with
a `timeSeries` of whole days (UTC here), grouped by properties of decisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

DAY_MS = 86_400_000

PROPERTIES = ("properties.flag_key", "properties.variation_key")
"""The properties that rows can be grouped by."""
EVENTS, VISITORS = {"sum": "numEvents"}, {"count": "visitorId"}
"""What can be counted for a group."""


class Tally(NamedTuple):
    """The key by which recorded track events are counted."""

    event: str
    day: int
    """Whole days since 1970, by the event's own time."""
    flag_key: str | None
    variation_key: str | None

    def values(self, names: Sequence[str]) -> tuple[str | None, ...]:
        """The properties of these names."""
        own = dict(zip(PROPERTIES, (self.flag_key, self.variation_key), strict=True))
        return tuple(own[name] for name in names)


class BadPipelineError(ValueError):
    """The stand-in does not understand a request."""


@dataclass(slots=True)
class Tallied:
    """What was counted for one key."""

    events: int = 0
    visitors: set[int] = field(default_factory=set)
    """Digests of their ids."""


def aggregate(body: bytes, tallies: Mapping[Tally, Tallied]) -> dict[str, Any]:
    """Answer a request. Raises BadPipelineError."""
    match _pipeline(body):
        case [{"source": {"trackTypes": None}}]:
            return {"results": [{"id": type_id(name), "name": name} for name in _events(tallies)]}
        case [
            {
                "source": {
                    "trackEvents": {"trackTypeId": str(wanted)},
                    "timeSeries": {"period": "dayRange", "first": int(first_ms), "count": int(count)},
                }
            },
            {"group": {"group": [*by], "fields": {**fields}}},
        ] if set(by) <= set(PROPERTIES) and all(each in (EVENTS, VISITORS) for each in fields.values()):
            days = range(first_ms // DAY_MS, first_ms // DAY_MS + count)
            chosen = {t: n for t, n in tallies.items() if type_id(t.event) == wanted and t.day in days}
            return {"results": _grouped(chosen, by, {str(name): what for name, what in fields.items()})}
    raise BadPipelineError("the stand-in does not know this pipeline; see its aggregation.py")


def type_id(event: str) -> str:
    """The id of an event name in Pendo."""
    return hashlib.blake2b(event.encode(), digest_size=9).hexdigest()


def _pipeline(body: bytes) -> object:
    try:
        match orjson.loads(body):
            case {"response": {"mimeType": "application/json"}, "request": {"pipeline": pipeline}}:
                return pipeline
    except orjson.JSONDecodeError:
        raise BadPipelineError("the body is not JSON") from None
    raise BadPipelineError("the body needs response.mimeType application/json and request.pipeline")


def _events(tallies: Mapping[Tally, Tallied]) -> list[str]:
    return sorted({tally.event for tally in tallies})


def _grouped(
    tallies: Mapping[Tally, Tallied], by: Sequence[str], fields: Mapping[str, object]
) -> list[dict[str, Any]]:
    """Rows in Pendo's form: grouping properties are nested by the dots in their names."""
    groups: dict[tuple[str | None, ...], Tallied] = {}
    for tally, found in tallies.items():
        group = groups.setdefault(tally.values(by), Tallied())
        group.events += found.events
        group.visitors |= found.visitors
    names = [name.removeprefix("properties.") for name in by]
    return [
        {
            "properties": dict(zip(names, values, strict=True)),
            **{
                name: group.events if what == EVENTS else len(group.visitors) for name, what in fields.items()
            },
        }
        for values, group in groups.items()
    ]
