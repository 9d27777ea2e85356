"""Pendo's aggregation endpoint, as far as `flagpost reconcile --pendo` asks it.

In: a request's body, and what was received. Out: the rows that its pipeline gives, or what is wrong with it. Two
pipelines are understood: source `trackTypes` (every event name with its id), and source `trackEvents` of one
`trackTypeId` with a `timeSeries` of whole days (UTC here), grouped by properties that decisions have.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

DAY_MS = 86_400_000

PROPERTIES = ("properties.flag_key", "properties.variation_key")
"""What rows can be grouped by."""


class Tally(NamedTuple):
    """What recorded track events are counted by."""

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


def aggregate(body: bytes, tallies: Mapping[Tally, int]) -> dict[str, Any]:
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
            {"group": {"group": [*by], "fields": {**sums}}},
        ] if set(by) <= set(PROPERTIES) and all(each == {"sum": "numEvents"} for each in sums.values()):
            days = range(first_ms // DAY_MS, first_ms // DAY_MS + count)
            chosen = {t: n for t, n in tallies.items() if type_id(t.event) == wanted and t.day in days}
            return {"results": _grouped(chosen, by, [str(name) for name in sums])}
    raise BadPipelineError("the stand-in does not know this pipeline; see its aggregation.py")


def type_id(event: str) -> str:
    """The id that Pendo gives to an event name."""
    return hashlib.blake2b(event.encode(), digest_size=9).hexdigest()


def _pipeline(body: bytes) -> object:
    try:
        match orjson.loads(body):
            case {"response": {"mimeType": "application/json"}, "request": {"pipeline": pipeline}}:
                return pipeline
    except orjson.JSONDecodeError:
        raise BadPipelineError("the body is not JSON") from None
    raise BadPipelineError("the body needs response.mimeType application/json and request.pipeline")


def _events(tallies: Mapping[Tally, int]) -> list[str]:
    return sorted({tally.event for tally in tallies})


def _grouped(tallies: Mapping[Tally, int], by: Sequence[str], sums: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as Pendo gives them: what they are grouped by is nested as it is named."""
    groups: Counter[tuple[str | None, ...]] = Counter()
    for tally, count in tallies.items():
        groups[tally.values(by)] += count
    names = [name.removeprefix("properties.") for name in by]
    return [
        {"properties": dict(zip(names, values, strict=True)), **dict.fromkeys(sums, count)}
        for values, count in groups.items()
    ]
