"""Kafka's administration, as far as operators' commands need it.

In: the `kafka` section. Out: the present topics, created topics, this user's rights; `KafkaUnavailable` with the
reason in a line if Kafka does not answer or refuses, `RightMissing` if a right is missing. Topics are requested by
name: a list of all leaves out those that this user may not see. Calls block, each for at most `CALL_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.cimpl import NewTopic

from flagpost_consumer.commands.sources.kafka_clients import silent_client
from flagpost_consumer.commands.topics.rules import TopicSpec, TopicState
from flagpost_consumer.settings import KafkaSettings
from flagpost_consumer.terminal.patience import SILENT_SECONDS, Patience
from flagpost_kafka import errors, rights
from flagpost_kafka.rights import Operation, Resource, Right

CALL_SECONDS = 10.0
VISIBLE_SECONDS = 60.0
"""Until a new topic is visible: brokers learn of it from the controller, and slow ones learn late."""
POLL_SECONDS = 0.05

_NOT_YET_THERE: Final = errors.NO_TOPIC | {KafkaError.LEADER_NOT_AVAILABLE}

Result = TypeVar("Result")


class KafkaUnavailable(Exception):  # noqa: N818 (a state of Kafka's, no fault of ours)
    """Kafka does not answer, or refuses the request; the text says which and why."""


class RightMissing(KafkaUnavailable):
    """A right is missing for the request; the text names it."""


def unavailable(servers: str, error: KafkaError, heard: str = "") -> KafkaUnavailable:
    """Why a call failed. `error` names the missing right; `heard` is what librdkafka reported before."""
    if rights.is_missing(error):
        return RightMissing(f"{error.str()}; docs/security.md lists the rights of each command")
    why = f" ({heard})" if heard else ""
    return KafkaUnavailable(
        f"{servers}: {error.str()}{why}; see kafka.bootstrap_servers and kafka.properties"
    )


class KafkaAdmin:
    """A connection to the cluster."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Connects in the background.

        Raises:
            SettingsError: librdkafka does not know a property, or its value is impossible.
        """
        self._servers = kafka.bootstrap_servers or ""
        self._last_error = ""
        self._patience = Patience(self._servers, self._heard)
        own = {"error_cb": self._remember, "allow.auto.create.topics": False}
        self._client = silent_client(AdminClient, {**kafka.client_properties(), **own})

    def partitions(self, name: str, *needed: Operation) -> int | None:
        """The number of partitions of a topic; None: there is no such topic.

        `needed`: the rights that this user needs to it, besides seeing it.

        Raises:
            RightMissing: this user may not see the topic, and so has none of these rights.
            KafkaUnavailable: no answer.
        """
        found = self._ask(partial(self._client.list_topics, name)).topics[name]
        if found.partitions:
            return len(found.partitions)
        if found.error is None or found.error.code() in _NOT_YET_THERE:
            return None
        operations = needed or (Operation.DESCRIBE,)
        raise self._unavailable(found.error, *(Right(each, Resource.TOPIC, name) for each in operations))

    def brokers(self, name: str) -> int:
        """The number of brokers; `name`: a topic to ask about, whether it exists or not.

        Raises:
            KafkaUnavailable: no answer.
        """
        return len(self._ask(partial(self._client.list_topics, name)).brokers)

    def state(self, name: str, *needed: Operation) -> TopicState | None:
        """The present state of a topic; None: there is no such topic. `needed`: as for `partitions`.

        Raises:
            RightMissing: this user may not see the topic, or its configuration.
            KafkaUnavailable: no answer.
        """
        partitions = self.partitions(name, *needed)
        if partitions is None:
            return None
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        (future,) = self._client.describe_configs([resource], request_timeout=CALL_SECONDS).values()
        right = Right(Operation.DESCRIBE_CONFIGS, Resource.TOPIC, name)
        return _state(partitions, self._ask(future.result, right))

    def states(self, names: Iterable[str], *needed: Operation) -> dict[str, TopicState]:
        """The present states of the topics, by name; a missing one is left out. Raises like `state`."""
        return {name: state for name in names if (state := self.state(name, *needed)) is not None}

    def awaited_states(self, names: Sequence[str]) -> dict[str, TopicState]:
        """Like `states`, once every topic exists: brokers learn of a new topic a moment after it is created.

        Raises:
            KafkaUnavailable: a topic does not appear, or as for `states`.
        """
        began = time.monotonic()
        while hidden := [name for name in names if self.partitions(name) is None]:
            waited, topics = time.monotonic() - began, ", ".join(hidden)
            if waited > VISIBLE_SECONDS:
                raise KafkaUnavailable(
                    f"{self._servers}: created, but not visible after {VISIBLE_SECONDS:g} s: {topics}; run it again"
                )
            if waited > SILENT_SECONDS:
                self._patience.say(
                    f"for up to {VISIBLE_SECONDS:g} s", f"its brokers do not know yet: {topics}"
                )
            time.sleep(POLL_SECONDS)
        return self.states(names)

    def rights_on_topic(self, name: str) -> frozenset[Operation] | None:
        """Rights of this user to a topic; None: Kafka does not tell. Raises like `state`."""
        asked = TopicCollection([name])
        options = {"include_authorized_operations": True, "request_timeout": CALL_SECONDS}
        (future,) = self._client.describe_topics(asked, **options).values()
        right = Right(Operation.DESCRIBE, Resource.TOPIC, name)
        return _operations(self._ask(future.result, right).authorized_operations)

    def rights_on_group(self, group: str) -> frozenset[Operation] | None:
        """Rights of this user to a group, whether it exists or not; None: Kafka does not tell.

        Raises:
            RightMissing: this user may not even see it.
            KafkaUnavailable: no answer.
        """
        return _operations(self._described(group, rights.joins(group)).authorized_operations)

    def members(self, group: str) -> int:
        """The number of members of a group. Raises like `rights_on_group`."""
        return len(self._described(group, rights.joins(group)).members)

    def assigned(self, group: str, topic: str) -> frozenset[int]:
        """The partitions of a topic that members of a group have. Raises like `rights_on_group`."""
        return frozenset(
            held.partition
            for member in self._described(group, Right(Operation.DESCRIBE, Resource.GROUP, group)).members
            for held in member.assignment.topic_partitions
            if held.topic == topic
        )

    def _described(self, group: str, needed: Right) -> ConsumerGroupDescription:
        options = {"include_authorized_operations": True, "request_timeout": CALL_SECONDS}
        (future,) = self._client.describe_consumer_groups([group], **options).values()
        found: ConsumerGroupDescription = self._ask(future.result, needed)
        return found

    def create(self, spec: TopicSpec, partitions: int, replication: int) -> bool:
        """Create the topic; False if it already exists (another program may have been quicker).

        Raises:
            KafkaUnavailable: no answer, or Kafka refuses.
        """
        topic = NewTopic(spec.name, spec.partitions(partitions), replication, config=spec.config(replication))
        (future,) = self._client.create_topics([topic], request_timeout=CALL_SECONDS).values()
        try:
            self._answer(future.result)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                raise KafkaUnavailable(
                    f"{error.args[0].str()} Give a smaller --replication, or none: then there are as many "
                    "replicas as brokers, up to 3. If brokers are just starting, run it again."
                ) from None
            right = Right(Operation.CREATE, Resource.TOPIC, spec.name)
            raise self._unavailable(error.args[0], right) from None
        return True

    def delete_below(self, topic: str, below: Mapping[int, int]) -> None:
        """Delete the records of each partition below an offset.

        Raises:
            RightMissing: this user may not.
            KafkaUnavailable: no answer.
        """
        asked = [TopicPartition(topic, number, offset) for number, offset in below.items()]
        right = Right(Operation.DELETE, Resource.TOPIC, topic)
        for future in self._client.delete_records(asked, request_timeout=CALL_SECONDS).values():
            self._ask(future.result, right)

    def _ask(self, call: Callable[..., Result], *needed: Right) -> Result:
        try:
            return self._answer(call)
        except KafkaException as error:
            raise self._unavailable(error.args[0], *needed) from None

    def _answer(self, call: Callable[..., Result]) -> Result:
        """Kafka's answer. Raises KafkaException, also if it does not answer."""
        try:
            return self._patience.ask(call, CALL_SECONDS)
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer")) from None  # noqa: SLF001 - librdkafka's public name

    def _unavailable(self, error: KafkaError, *needed: Right) -> KafkaUnavailable:
        return unavailable(self._servers, rights.named(error, *needed), self._heard())

    def _heard(self) -> str:
        """What librdkafka has reported about its connections."""
        self._client.poll(0)  # lets it report
        return self._last_error

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name; it says nothing more
            self._last_error = error.str()


def _operations(told: Sequence[Enum] | None) -> frozenset[Operation] | None:
    if not told:
        return None
    known = {operation.value.lower(): operation for operation in Operation}
    names = {operation.name.replace("_", "").lower() for operation in told}
    return frozenset(known[name] for name in names & known.keys())


def _state(partitions: int, config: dict[str, Any]) -> TopicState:
    retention = float(config["retention.ms"].value)
    return TopicState(
        partitions=partitions,
        retention_ms=float("inf") if retention < 0 else retention,
        max_message_bytes=int(config["max.message.bytes"].value),
        cleanup_policy=config["cleanup.policy"].value,
        segment_ms=int(config["segment.ms"].value),
    )
