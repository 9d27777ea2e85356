"""Headers whose names are not UTF-8, through the real client and the real consumer, on librdkafka's mock cluster."""

from __future__ import annotations

import time

from chaos.raw_producer import RawProducer
from engine_world import decision
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_schemas import encode_single_object
from running import RunningConsumer, eventually
from traffic import tracks

RECORDS = 300
"""Enough for Python to specialize the bytecode that reads them: only then is a header's null pointer not noticed."""


async def test_a_record_with_such_a_header_is_delivered_like_any_other() -> None:
    topics = ("flagpost.events", "flagpost.ledger", "flagpost.dead-letters")
    with EmbeddedKafka(dict.fromkeys(topics, 1)) as kafka:
        producer = RawProducer(kafka.bootstrap_servers)
        for number in range(RECORDS):
            name = b"\xff\xfe" if number % 50 == 49 else b"trace"
            event = decision(f"v{number}", occurred_at=time.time_ns() // 1_000_000)
            headers = [(name, b"1"), (b"mine", b"2")]
            producer.produce(topics[0], f"v{number}".encode(), encode_single_object(event), headers)
        producer.close()
        async with PendoStandIn() as pendo:
            settings: dict[str, object] = {
                "kafka.bootstrap_servers": kafka.bootstrap_servers,
                "pendo.track_url": pendo.track_url,
                "pendo.api_url": pendo.api_url,
                "pendo.track_secret": pendo.keys.track_secret,
                "decisions.visitor_metadata": False,
            }
            with RunningConsumer(settings) as consumer:
                await eventually(lambda: len(tracks(pendo.received)) == RECORDS or not consumer.is_running)
                assert await consumer.stop() == 0
            assert {request.visitor_id for request in tracks(pendo.received)} == {
                f"v{n}" for n in range(RECORDS)
            }
            told = [line for line in consumer.lines if "not UTF-8" in line]
            assert len(told) == RECORDS // 50
