"""Kafka's administration, as far as operators' commands need it.

In: the `kafka` section. Out: topics as they are, topics created; `KafkaUnavailable` with the reason in a line
where Kafka does not answer or refuses. Calls block, each for `CALL_SECONDS` at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from flagpost_consumer.operator.kafka_clients import silent_client
from flagpost_consumer.operator.topic_rules import TopicSpec, TopicState
from flagpost_consumer.settings import KafkaSettings

CALL_SECONDS = 10.0
POLL_SECONDS = 0.05

Result = TypeVar("Result")


class KafkaUnavailable(Exception):  # noqa: N818 (a state of Kafka's, no fault of ours)
    """Kafka does not answer, or refuses what was asked; the text says which and why."""


class KafkaAdmin:
    """A connection to the cluster."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Connects in the background.

        Raises:
            SettingsError: librdkafka does not know a property, or its value is impossible.
        """
        self._servers = kafka.bootstrap_servers
        self._last_error = ""
        self._client = silent_client(AdminClient, {**kafka.client_properties(), "error_cb": self._remember})

    def partitions(self) -> dict[str, int]:
        """The number of partitions of every topic that we may see.

        Raises:
            KafkaUnavailable: no answer.
        """
        listed = self._ask(lambda: self._client.list_topics(timeout=CALL_SECONDS))
        return {name: len(topic.partitions) for name, topic in listed.topics.items()}

    def states(self, names: Iterable[str]) -> dict[str, TopicState]:
        """The topics as they are, by name; one that does not exist is left out.

        Raises:
            KafkaUnavailable: no answer, or no right to see a topic's configuration.
        """
        partitions = self.partitions()
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names if name in partitions]
        if not resources:
            return {}
        futures = self._client.describe_configs(resources, request_timeout=CALL_SECONDS)
        return {
            resource.name: _state(partitions[resource.name], self._result(future))
            for resource, future in futures.items()
        }

    def awaited_states(self, names: Sequence[str]) -> dict[str, TopicState]:
        """As `states`, once every name is there: brokers hear of a new topic a moment after it is created.

        Raises:
            KafkaUnavailable: a topic is not to be seen, or as `states`.
        """
        deadline = time.monotonic() + CALL_SECONDS
        while hidden := set(names) - self.partitions().keys():
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"{self._servers}: topics exist and are not to be seen: {', '.join(sorted(hidden))}; "
                    "give this client the right to describe them"
                )
            self._client.poll(POLL_SECONDS)
        return self.states(names)

    def create(self, spec: TopicSpec, partitions: int, replication: int) -> bool:
        """Create the topic; False if it is there already (somebody may have been quicker).

        Raises:
            KafkaUnavailable: no answer, or Kafka refuses.
        """
        topic = NewTopic(spec.name, spec.partitions(partitions), replication, config=spec.config(replication))
        (future,) = self._client.create_topics([topic], request_timeout=CALL_SECONDS).values()
        try:
            future.result(CALL_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                raise KafkaUnavailable(f"{_text(error)} Give a smaller --replication.") from None
            raise self._unavailable(error) from None
        return True

    def delete_below(self, topic: str, below: Mapping[int, int]) -> None:
        """Delete the records of each partition that lie below an offset.

        Raises:
            KafkaUnavailable: no answer, or no right to.
        """
        asked = [TopicPartition(topic, number, offset) for number, offset in below.items()]
        for future in self._client.delete_records(asked, request_timeout=CALL_SECONDS).values():
            try:
                future.result(CALL_SECONDS)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    right = f"Delete on Topic {topic}"
                    raise KafkaUnavailable(
                        f"this client lacks the right to delete records ({right})"
                    ) from None
                raise self._unavailable(error) from None

    def _result(self, future: Future[Result]) -> Result:
        return self._ask(lambda: future.result(CALL_SECONDS))

    def _ask(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except (KafkaException, TimeoutError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> KafkaUnavailable:
        self._client.poll(0)  # lets librdkafka tell why
        why = f" ({self._last_error})" if self._last_error else ""
        return KafkaUnavailable(
            f"{self._servers}: {_text(error)}{why}; see kafka.bootstrap_servers and kafka.properties"
        )

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name; it says nothing more
            self._last_error = error.str()


def _text(error: Exception) -> str:
    given = error.args[0] if error.args else "no answer"
    return given.str() if isinstance(given, KafkaError) else str(given)


def _state(partitions: int, config: dict[str, Any]) -> TopicState:
    retention = float(config["retention.ms"].value)
    return TopicState(
        partitions=partitions,
        retention_ms=float("inf") if retention < 0 else retention,
        max_message_bytes=int(config["max.message.bytes"].value),
        cleanup_policy=config["cleanup.policy"].value,
        segment_ms=int(config["segment.ms"].value),
    )
