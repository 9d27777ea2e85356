"""The fuzzed consumer's environment: Kafka, a schema registry, Pendo and settings.

In: which Kafka. Out: addresses, and the settings that connect a consumer to them.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Kind, MetadataField, PendoStandIn, StandInConfig
from flagpost_consumer.settings import Needs, Settings, load_settings
from flagpost_schemas import EVENT_TYPES, DecisionEvent, schema_of
from real_kafka.broker import OwnBroker
from served import served

PARTITIONS = 4
MAX_BYTES = 4_000_000
"""The limit of a record: a megabyte of text may be in its key, too."""
EVENTS, LEDGER, DEAD_LETTERS = "fuzz.events", "fuzz.ledger", "fuzz.dead-letters"
FAULTS = ((0.003, 503), (0.003, 422))
"""Pendo's errors by share of the requests: a 503 is retried, a 422 refuses the event."""

SCHEMA_IDS = {event_type: number for number, event_type in enumerate(EVENT_TYPES, 1)}
ODD_SCHEMAS: dict[int, dict[str, Any]] = {
    5: {"schema": "{}", "schemaType": "JSON"},
    6: {"schema": "this is not a schema"},
    7: {"schema": '{"type":"record","name":"Tree","fields":[{"name":"t","type":["null","Tree"]}]}'},
    8: {"schema": '{"type":"record","name":"Stranger","fields":[]}'},
    9: {"schema": '{"type":"array","items":"null"}'},
    10: {"schema": schema_of(DecisionEvent).text.replace('"visitor_id"', '"visitor"')},
}


async def _answer_schema(request: web.Request) -> web.Response:
    number = int(request.match_info["id"])
    texts = {number: {"schema": schema_of(event_type).text} for event_type, number in SCHEMA_IDS.items()}
    answer = {**texts, **ODD_SCHEMAS}.get(number)
    if answer is None:
        return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)
    return web.json_response(answer)


@asynccontextmanager
async def registry() -> AsyncIterator[str]:
    """Run a schema registry with the four good schemas, and some that the consumer must reject; yields its URL."""
    app = web.Application()
    app.router.add_get("/schemas/ids/{id}", _answer_schema)
    async with served(app) as url:
        yield url


@contextmanager
def kafka(*, real: bool) -> Iterator[str]:
    """Run a broker with the topics; yields its address."""
    if not real:
        with EmbeddedKafka(dict.fromkeys((EVENTS, LEDGER, DEAD_LETTERS), PARTITIONS)) as embedded:
            yield embedded.bootstrap_servers
        return
    with tempfile.TemporaryDirectory() as directory:
        broker = OwnBroker(Path(directory))
        broker.create_topics(LEDGER, partitions=PARTITIONS)
        for topic, most_bytes in ((EVENTS, MAX_BYTES), (DEAD_LETTERS, MAX_BYTES + 65_536)):
            broker.create_topics(topic, partitions=PARTITIONS, config={"max.message.bytes": str(most_bytes)})
        yield broker.bootstrap_servers
        broker.stop()


@asynccontextmanager
async def pendo(seed: int) -> AsyncIterator[PendoStandIn]:
    """Run a Pendo that knows one account field. Its visitor fields cannot be read, so those are sent unchecked."""
    config = StandInConfig(
        keep_bodies=False,
        newest_kept=100,
        visitor_interval_seconds=0,
        fields=(MetadataField("seats", "seats", Kind.ACCOUNT),),
    )
    async with PendoStandIn(config) as stand_in:
        stand_in.faults.next(Endpoint.SCHEMA, 503)
        stand_in.faults.mix(seed, FAULTS)
        yield stand_in


def settings_for(bootstrap_servers: str, registry_url: str, pendo: PendoStandIn) -> Settings:
    """The consumer's settings, without pace and budget, because only the records are tested here."""
    given: dict[str, object] = {
        "kafka.bootstrap_servers": bootstrap_servers,
        "kafka.group_id": "fuzz",
        "kafka.topic": EVENTS,
        "kafka.ledger_topic": LEDGER,
        "kafka.dead_letter_topic": DEAD_LETTERS,
        "kafka.properties": {"fetch.wait.max.ms": 20},
        "kafka.schema_registry.url": registry_url,
        "kafka.schema_registry.unknown_seconds": 0.2,
        "pendo.track_url": pendo.track_url,
        "pendo.api_url": pendo.api_url,
        "pendo.track_secret": pendo.keys.track_secret,
        "pendo.integration_key": pendo.keys.integration_key,
        "pendo.metadata_requests_per_minute": None,
        "delivery.visitor_interval_seconds": 0,
        "decisions.attribute_properties": ["plan", "age", "2nd", "error"],
        "mapping.identity_properties": ["locale"],
        "metadata.linger_seconds": 0.1,
        "admin.host": "127.0.0.1",
        "admin.port": 0,
    }
    environ = {
        "FLAGPOST_" + key.upper().replace(".", "__"): value
        if isinstance(value, str)
        else orjson.dumps(value).decode()
        for key, value in given.items()
    }
    return load_settings(None, environ, Needs.KAFKA | Needs.PENDO)
