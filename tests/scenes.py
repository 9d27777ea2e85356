"""A scene: topics on a real Kafka, a Pendo stand-in, and the settings of a consumer between them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any, cast

import orjson
from confluent_kafka import Consumer

from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_schemas import Event
from real_kafka.broker import KafkaBroker
from running import RunningConsumer, flagpost
from traffic import Published, publish

SHORT_SESSION = {"kafka__session_timeout_seconds": 8, "pendo__request_timeout_seconds": 3}
"""For a consumer that is killed: Kafka gives its partitions to the next one after these seconds, not after 45."""


class Scene:
    """One test's topics, its Pendo stand-in, and the settings that connect them."""

    def __init__(self, kafka: KafkaBroker, pendo: PendoStandIn, name: str, partitions: int = 4) -> None:
        self.kafka = kafka
        self.pendo = pendo
        self.partitions = partitions
        self.topic, self.dead_letters = f"{name}.events", f"{name}.dead-letters"
        self.ledger, self.suppressions = f"{name}.ledger", f"{name}.suppressions"
        kafka.create_topics(self.topic, self.ledger, self.dead_letters, partitions=partitions)
        self.settings: dict[str, object] = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": name,
            "kafka.topic": self.topic,
            "kafka.ledger_topic": self.ledger,
            "kafka.dead_letter_topic": self.dead_letters,
            "kafka.suppressions_topic": self.suppressions,
            "pendo.track_url": pendo.track_url,
            "pendo.api_url": pendo.api_url,
            "pendo.track_secret": pendo.keys.track_secret,
            "pendo.integration_key": pendo.keys.integration_key,
            "metadata.linger_seconds": 0.2,
        }

    def publish(self, events: Iterable[Event]) -> list[Published]:
        """Produce events to the scene's topic."""
        return publish(self.kafka.bootstrap_servers, self.topic, events)

    def consume(self, **settings: object) -> RunningConsumer:
        """Start a consumer; a setting's dots are written as two underscores."""
        return RunningConsumer(
            {**self.settings, **{key.replace("__", "."): v for key, v in settings.items()}}
        )

    def flagpost(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the scene's settings."""
        return flagpost(self.settings, *arguments)

    def reconcile(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Run `flagpost reconcile --json`; returns the exit code and the document."""
        done = self.flagpost("reconcile", "--json", *options)
        assert done.stdout, done.stderr
        return done.returncode, orjson.loads(done.stdout)

    def read_dead_letters(self, count: int) -> list[dict[str, Any]]:
        """The first dead letters: key, value, and headers as text."""
        reader = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": f"{self.topic}-reader",
                "auto.offset.reset": "earliest",
            }
        )
        reader.subscribe([self.dead_letters])
        letters = []
        for _ in range(50 if count == 0 else 300):
            message = reader.poll(0.1)
            if message is not None and message.error() is None:
                found = cast("list[tuple[str, bytes]]", message.headers() or [])
                headers = {name: value.decode() for name, value in found}
                letters.append({"key": message.key(), "value": message.value(), "headers": headers})
            if letters and len(letters) >= count:
                break
        reader.close()
        return letters
