"""Pendo's decisions: the rules, the faults and the record of requests. No I/O, no clock, no waiting.

In: requests as they arrived. Out: the answer to each, after it was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from flagpost_consumer.demo.pendo_stand_in.aggregation import BadPipelineError, aggregate
from flagpost_consumer.demo.pendo_stand_in.config import Enforcement, StandInConfig
from flagpost_consumer.demo.pendo_stand_in.faults import Fault, Faults
from flagpost_consumer.demo.pendo_stand_in.metadata import Metadata
from flagpost_consumer.demo.pendo_stand_in.received import Fate, ReceivedLog
from flagpost_consumer.demo.pendo_stand_in.rules import (
    PROCESSED_FOR_MS,
    Breach,
    MetadataRecord,
    Pace,
    Rule,
    TrackEvent,
    id_member,
    read_metadata,
    read_track,
)
from flagpost_consumer.demo.pendo_stand_in.traffic import (
    Answer,
    Arrival,
    Ending,
    Endpoint,
    Kind,
    Route,
)

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Judgement:
    """The verdict on a request."""

    status: int
    body: bytes = b""
    fate: Fate = Fate.NOT_RECORDED


class Pendo:
    """Pendo's state, and its answers."""

    def __init__(self, config: StandInConfig) -> None:
        self._config = config
        self.keys = config.keys
        self.faults = Faults(config.latency_seconds)
        self.received = ReceivedLog(keep_bodies=config.keep_bodies, newest_kept=config.newest_kept)
        self.metadata = Metadata(config.fields, config.unmapped_fields)
        self._pace = Pace(config.visitor_interval_seconds)
        self._ids_in_flight: Counter[tuple[Kind, str]] = Counter()

    def reset(self) -> None:
        """Forget what was received and what was scripted; keys and fields stay."""
        self.received.forget()
        self.faults.clear()
        self.faults.latency_seconds = self._config.latency_seconds
        self.metadata.forget()
        self._pace = Pace(self._config.visitor_interval_seconds)

    def answer(self, arrival: Arrival) -> Answer:
        """Judge, record and answer one request; the caller calls `release` once the answer was sent."""
        self.received.begin(arrival.route.endpoint)
        match arrival.route.endpoint:
            case Endpoint.TRACK:
                return self._track(arrival)
            case Endpoint.METADATA:
                return self._metadata(arrival)
            case Endpoint.SCHEMA:
                return self._read(arrival, self.metadata.schema(arrival.route.kind))
            case Endpoint.TOKEN:
                return self._read(arrival, {"valid": True, "writeAccess": self.keys.may_write})
            case Endpoint.AGGREGATION:
                return self._aggregation(arrival)
            case Endpoint.DETAILS:
                return self._details(arrival)

    def release(self, route: Route, answer: Answer) -> None:
        """The answer has been sent, or never will be: its metadata ids are no longer in flight."""
        self.received.end(route.endpoint)
        for identity in answer.ids_held:
            self._ids_in_flight[route.kind, identity] -= 1
            if not self._ids_in_flight[route.kind, identity]:
                del self._ids_in_flight[route.kind, identity]

    # Track.

    def _track(self, arrival: Arrival) -> Answer:
        event, bad = read_track(arrival.content_type, arrival.body)
        too_soon = self._too_soon(event.visitor_id, arrival.at_seconds)
        fault = self.faults.strike(Endpoint.TRACK, event.visitor_id)
        judgement = _struck_by(fault, self._judge_track(arrival, event, bad, too_soon))
        if judgement.fate is Fate.RECORDED:
            self.received.count_track(event, arrival.body)
        return self._record(arrival, fault, judgement, [*bad, *too_soon], visitor_id=event.visitor_id)

    def _too_soon(self, visitor_id: str | None, now: float) -> list[Breach]:
        breach = self._pace.arrive(visitor_id, now) if visitor_id is not None else None
        return [] if breach is None else [breach]

    def _judge_track(
        self, arrival: Arrival, event: TrackEvent, bad: Sequence[Breach], too_soon: Sequence[Breach]
    ) -> _Judgement:
        if arrival.presented_key != self.keys.track_secret:
            return _Judgement(self.keys.refused_status)
        if bad and self._config.on_bad_request is Enforcement.REFUSE:
            return _refused(400, bad)
        if too_soon and self._config.on_pace is Enforcement.REFUSE:
            return _refused(429, too_soon)
        too_old = event.timestamp_ms is not None and arrival.wall_ms - event.timestamp_ms > PROCESSED_FOR_MS
        return _Judgement(200, fate=Fate.IGNORED if too_old else Fate.RECORDED)

    # Metadata.

    def _metadata(self, arrival: Arrival) -> Answer:
        kind = arrival.route.kind
        records, bad = read_metadata(kind, arrival.content_type, arrival.body)
        breaches = [*bad, *self._already_in_flight(kind, records)]
        fault = self.faults.strike(Endpoint.METADATA, None)
        judgement = _struck_by(fault, self._judge_metadata(arrival, records, bad))
        if judgement.fate is Fate.RECORDED:
            body = self._store(arrival, records)
            judgement = replace(judgement, body=body) if fault.is_pendos_own_answer else judgement
        ids = frozenset(record.id for record in records)
        self._ids_in_flight.update((kind, identity) for identity in ids)
        return self._record(arrival, fault, judgement, breaches, ids_held=ids)

    def _already_in_flight(self, kind: Kind, records: Sequence[MetadataRecord]) -> list[Breach]:
        return [
            Breach(Rule.METADATA_ID_IN_FLIGHT, "another request has this id and is not answered", record.id)
            for record in records
            if (kind, record.id) in self._ids_in_flight
        ]

    def _judge_metadata(
        self, arrival: Arrival, records: Sequence[MetadataRecord], bad: Sequence[Breach]
    ) -> _Judgement:
        if arrival.presented_key != self.keys.integration_key or not self.keys.may_write:
            return _Judgement(self.keys.refused_status)
        if bad and (self._config.on_bad_request is Enforcement.REFUSE or not records):
            return _refused(400, bad)
        if any(record.id in self.faults.poisoned_ids for record in records):
            return _Judgement(400, _error("malformed request"))
        if unmapped := self.metadata.unmapped_in(arrival.route, records):
            return _Judgement(400, _error(f"field {unmapped} is not mapped"))
        return _Judgement(200, fate=Fate.RECORDED)

    def _store(self, arrival: Arrival, records: Sequence[MetadataRecord]) -> bytes:
        create = "create=true" in arrival.path.partition("?")[2].split("&")
        outcome = self.metadata.apply(arrival.route, records, self.faults.failing_ids, create=create)
        self.received.metadata_records += outcome.updated
        return orjson.dumps(
            {
                "total": len(records),
                "updated": outcome.updated,
                "failed": len(outcome.missing) + len(outcome.failed),
                "missing": outcome.missing,
                "errors": [self._named(arrival.route.kind, *failure) for failure in outcome.failed],
            }
        )

    def _named(self, kind: Kind, record: MetadataRecord, error: str) -> dict[str, object]:
        names = {"index": record.index, "id": record.id, id_member(kind): record.id}
        return {name: names[name] for name in self._config.error_members if name in names} | {"error": error}

    # Reading.

    def _aggregation(self, arrival: Arrival) -> Answer:
        try:
            content = aggregate(arrival.body, self.received.tallies)
        except BadPipelineError as error:
            return self._read(arrival, {"error": str(error)}, status=400)
        return self._read(arrival, content)

    def _details(self, arrival: Arrival) -> Answer:
        details = self.metadata.details(arrival.route.kind, arrival.route.id)
        if details is None:
            return self._read(arrival, {"error": "not found"}, status=404)
        return self._read(arrival, details)

    def _read(self, arrival: Arrival, content: object, status: int = 200) -> Answer:
        if arrival.presented_key == self.keys.integration_key:
            judgement = _Judgement(status, orjson.dumps(content))
        else:
            judgement = _Judgement(self.keys.refused_status)
        fault = self.faults.strike(arrival.route.endpoint, None)
        return self._record(arrival, fault, _struck_by(fault, judgement), ())

    def _record(
        self,
        arrival: Arrival,
        fault: Fault,
        judgement: _Judgement,
        breaches: Sequence[Breach],
        *,
        visitor_id: str | None = None,
        ids_held: frozenset[str] = frozenset(),
    ) -> Answer:
        body = judgement.body if fault.body is None else fault.body
        answer = Answer(
            fault.ending,
            judgement.status if fault.ending is Ending.ANSWER else 0,
            body,
            {**(_JSON if body else {}), **fault.headers_at(arrival.wall_ms)},
            self.faults.latency_seconds + fault.delay_seconds,
            ids_held,
        )
        self.received.add(arrival, answer, judgement.fate, visitor_id, breaches)
        return answer


def _struck_by(fault: Fault, own: _Judgement) -> _Judgement:
    """Pendo's own judgement, changed by a fault."""
    if not fault.is_pendos_own_answer:
        return _Judgement(fault.status or 0, fate=own.fate if fault.recorded else Fate.NOT_RECORDED)
    if fault.status is not None and own.status == 200:
        return replace(own, status=fault.status)
    return own


def _refused(status: int, breaches: Sequence[Breach]) -> _Judgement:
    return _Judgement(status, _error("; ".join(breach.detail for breach in breaches)))


def _error(text: str) -> bytes:
    return orjson.dumps({"error": text})
