"""Delivers track events with Pyrallel-Consumer and aiohttp, each visitor's events in order.

Run by delivering.py in the virtual environment of requirements.txt; ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import fastavro
import orjson
import uvloop
from fastavro.types import Schema
from pyrallel_consumer.config import KafkaConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.dto import ExecutionMode, OrderingMode, WorkItem

FINGERPRINT_BYTES = 10
"""Of Avro's single-object encoding."""


def configuration(connections: int) -> KafkaConfig:
    config = KafkaConfig()
    config.BOOTSTRAP_SERVERS = [os.environ["DELIVER_KAFKA"]]
    config.CONSUMER_GROUP = os.environ["DELIVER_GROUP"]
    config.dlq_enabled = False
    config.parallel_consumer.ordering_mode = OrderingMode.KEY_HASH
    # How many ordered queues a partition has: so many that visitors seldom share one.
    config.parallel_consumer.worker_pool_size = connections
    config.parallel_consumer.execution.mode = ExecutionMode.ASYNC
    config.parallel_consumer.execution.max_in_flight = connections
    return config


async def deliver(schema: Schema) -> None:
    url, connections = os.environ["DELIVER_URL"], int(os.environ["DELIVER_CONNECTIONS"])
    authority = os.environ["DELIVER_CA"]
    connector = aiohttp.TCPConnector(
        limit=connections, ssl=ssl.create_default_context(cafile=authority) if authority else True
    )
    headers = {"x-pendo-integration-key": "secret"}

    async def worker(item: WorkItem) -> None:
        event: Any = fastavro.schemaless_reader(BytesIO(item.payload[FINGERPRINT_BYTES:]), schema, None)
        body = {
            "type": "track",
            "event": event["event"],
            "visitorId": event["visitor_id"],
            "timestamp": round(1000 * event["occurred_at"].timestamp()),
            "properties": event["properties"],
            "context": {},
        }
        async with session.post(url, json=body) as response:
            await response.read()
            response.raise_for_status()

    async with aiohttp.ClientSession(
        connector=connector, headers=headers, json_serialize=lambda value: orjson.dumps(value).decode()
    ) as session:
        consumer = PyrallelConsumer(configuration(connections), worker, os.environ["DELIVER_TOPIC"])
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        await consumer.start()
        await told.wait()
        await consumer.stop()


if __name__ == "__main__":
    text = Path(os.environ["DELIVER_SCHEMA"]).read_text()
    uvloop.run(deliver(fastavro.parse_schema(json.loads(text))))
