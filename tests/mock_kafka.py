"""librdkafka's mock cluster inside the test's process, which returns the errors that a test sets.

In: topics, and errors to return. Out: the address of a broker for librdkafka clients. Unlike the demo's embedded
Kafka it can fail on request: the errors that clients then raise and report are librdkafka's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import _librdkafka

PRODUCE = 0
LIST_OFFSETS = 2
INIT_PRODUCER_ID = 22
"""Kafka's numbers for kinds of requests (API keys)."""

FATAL = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
"""As the answer to a produce request it is fatal for an idempotent producer."""

READ_SECONDS = 20.0
_PRODUCER = 0
WELL, DOWN = 1, 2
"""The ids of the two brokers: one that works, and one that nobody can reach."""
_REASON_BYTES = 512


class MockKafka:
    """A broker that lives as long as its `with` block."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._topics = topics
        self._library = _librdkafka()
        for name, arguments in (
            ("rd_kafka_mock_push_request_errors_array", (ctypes.c_int16, ctypes.c_size_t, ctypes.c_void_p)),
            ("rd_kafka_mock_partition_set_leader", (ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32)),
            ("rd_kafka_mock_clear_request_errors", (ctypes.c_int16,)),
            ("rd_kafka_mock_cluster_destroy", ()),
            ("rd_kafka_mock_broker_set_down", (ctypes.c_int32,)),
            ("rd_kafka_mock_broker_set_up", (ctypes.c_int32,)),
            ("rd_kafka_mock_coordinator_set", (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32)),
            ("rd_kafka_mock_broker_set_rtt", (ctypes.c_int32, ctypes.c_int)),
            ("rd_kafka_mock_start_request_tracking", ()),
            ("rd_kafka_mock_get_requests", (ctypes.c_void_p,)),
        ):
            getattr(self._library, name).argtypes = (ctypes.c_void_p, *arguments)
        self._library.rd_kafka_destroy.argtypes = (ctypes.c_void_p,)
        self._library.rd_kafka_mock_get_requests.restype = ctypes.POINTER(ctypes.c_void_p)
        self._library.rd_kafka_mock_request_api_key.argtypes = (ctypes.c_void_p,)
        self._library.rd_kafka_mock_request_destroy_array.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._client: int | None = None
        self._cluster: int | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        reason = ctypes.create_string_buffer(_REASON_BYTES)
        settings = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(settings, b"log_level", b"0", reason, _REASON_BYTES)
        self._client = self._library.rd_kafka_new(_PRODUCER, settings, reason, _REASON_BYTES)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, DOWN)
        self._library.rd_kafka_mock_broker_set_down(self._cluster, DOWN)
        for name, partitions in self._topics.items():
            assert not self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
            for partition in range(partitions):
                self.set_leader(name, partition, there=True)
        self.bootstrap_servers = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def answer(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind with these errors, one after the other; 0: no error."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(errors), ctypes.cast(codes, ctypes.c_void_p)
        )

    def answer_well(self, request: int) -> None:
        """Forget the errors of a kind of request that are left."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, request)

    def set_leader(self, topic: str, partition: int, *, there: bool) -> None:
        """Make the broker that works a partition's leader (`there`), or the one that nobody can reach."""
        leader = WELL if there else DOWN
        self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, leader)

    def hide(self) -> None:
        """Make the working broker unreachable until `show`."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, WELL)

    def show(self) -> None:
        """Make the broker reachable again."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, WELL)

    def coordinate(self, transactional_id: str) -> None:
        """Make the broker that works the coordinator of a producer's transactions."""
        self._library.rd_kafka_mock_coordinator_set(
            self._cluster, b"transaction", transactional_id.encode(), WELL
        )

    def set_group_coordinator(self, group: str, *, there: bool) -> None:
        """Make the broker that works a consumer group's coordinator (`there`), or the one that nobody can reach."""
        coordinator = WELL if there else DOWN
        self._library.rd_kafka_mock_coordinator_set(self._cluster, b"group", group.encode(), coordinator)

    def set_round_trip(self, milliseconds: int) -> None:
        """Set how long the broker takes for each answer."""
        self._library.rd_kafka_mock_broker_set_rtt(self._cluster, WELL, milliseconds)

    def count_requests(self) -> None:
        """From now on, requests are counted."""
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)

    def requests(self, kind: int) -> int:
        """How many requests of a kind have come since `count_requests`."""
        count = ctypes.c_size_t()
        found = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        kinds = [self._library.rd_kafka_mock_request_api_key(found[number]) for number in range(count.value)]
        self._library.rd_kafka_mock_request_destroy_array(found, count.value)
        return kinds.count(kind)

    def read(self, topic: str) -> list[Message]:
        """The records that are on a topic now, partition by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "reader",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            return [
                message
                for partition in range(self._topics[topic])
                for message in _read_partition(consumer, topic, partition)
            ]
        finally:
            consumer.close()


def _read_partition(consumer: Consumer, topic: str, partition: int) -> list[Message]:
    low, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), stretched(READ_SECONDS))
    consumer.assign([TopicPartition(topic, partition, low)])
    found: list[Message] = []
    while len(found) < end - low:
        message = consumer.poll(stretched(READ_SECONDS))
        assert message is not None, f"{topic} {partition}: {len(found)} of {end - low} records came"
        assert message.error() is None, message.error()
        found.append(message)
    return found
