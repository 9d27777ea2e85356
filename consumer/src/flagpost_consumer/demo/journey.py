"""One real event on its way: the decision, the record in Kafka, the request to Pendo, the answer.

In: a delivery that has ended, and the requests that the Pendo stand-in received. Out: four facts for people.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from flagpost_consumer.core.books.deliveries import Settled
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.demo.pendo_stand_in import Received
from flagpost_schemas import DecisionEvent, DecodeError, Decoder, variation_as_sent


class Journey(NamedTuple):
    """The four stages, a line each."""

    decision: str
    record: str
    request: str
    answer: str


def journey_of(settled: Settled, requests: Iterable[Received]) -> Journey | None:
    """The journey of a delivered decision; None for any other delivery. `requests`: those to the track endpoint."""
    if settled.kind is not Kind.TRACK or settled.ending.outcome is not Outcome.DELIVERED:
        return None
    event = _decision(settled.record.value)
    if event is None:
        return None
    found = [each for each in requests if each.visitor_id == event.visitor_id and _is_of(each, event)]
    return None if not found else _told(event, settled, found[-1])


def _decision(value: bytes | None) -> DecisionEvent | None:
    try:
        event = Decoder().decode(value)
    except DecodeError:
        return None
    return event if isinstance(event, DecisionEvent) else None


def _is_of(request: Received, event: DecisionEvent) -> bool:
    body = orjson.loads(request.body)
    return bool(body.get("properties", {}).get("flag_key") == event.flag_key)


def _told(event: DecisionEvent, settled: Settled, request: Received) -> Journey:
    record = settled.record
    rule = f" by rule {event.rule_key}" if event.rule_key else ""
    tries = "1 attempt" if settled.attempts == 1 else f"{settled.attempts} attempts"
    return Journey(
        decision=f"decide({event.flag_key!r}) for {event.visitor_id}: {variation_as_sent(event)}{rule}",
        record=f"partition {record.partition}, offset {record.offset}, key {event.visitor_id}, "
        f"{len(record.value or b'')} bytes of Avro",
        request=f"POST {request.path} {request.body.decode()}",
        answer=f"{request.status}, after {tries}, {request.wall_ms - event.occurred_at:,} ms after decide()",
    )
