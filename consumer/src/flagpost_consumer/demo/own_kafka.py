"""The user's Kafka, with topics for one run that are removed again.

In: its address, topics. Out: the address, while the topics exist; `OwnKafkaError` with the reason in one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from flagpost_consumer.terminal.patience import Patience

SECONDS = 10.0
"""How long to wait for an answer."""


class OwnKafkaError(Exception):
    """Kafka does not answer, or does not create the topics; the text says why."""


@contextmanager
def own_kafka(servers: str, topics: Mapping[str, int]) -> Iterator[str]:
    """Create `topics`, each with its number of partitions, and remove them at the end.

    Raises:
        OwnKafkaError: that is not possible.
    """
    admin = _Admin(servers)
    admin.reach()
    try:
        admin.create(topics)
        yield servers
    finally:
        admin.delete(topics)


class _Admin:
    """A connection that remembers librdkafka's errors."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._last_error = ""
        properties: dict[str, Any] = {
            "bootstrap.servers": servers,
            "log_level": 0,
            "error_cb": self._remember,
        }
        self._client = AdminClient(properties)

    def reach(self) -> None:
        """Wait until Kafka answers. Raises OwnKafkaError."""
        patience = Patience(self._servers, self._heard)
        try:
            patience.ask(partial(self._client.list_topics, "flagpost-demo"), SECONDS)
        except KafkaException as error:
            raise self._failed("does not answer", error.args[0].str()) from None

    def create(self, topics: Mapping[str, int]) -> None:
        """Create the topics. Raises OwnKafkaError."""
        new = [NewTopic(name, partitions) for name, partitions in topics.items()]
        try:
            for future in self._client.create_topics(new, operation_timeout=SECONDS).values():
                future.result(SECONDS)
        except KafkaException as error:
            raise self._failed("does not create the demo's topics", error.args[0].str()) from None
        except TimeoutError:
            raise self._failed(
                "does not create the demo's topics", f"no answer within {SECONDS:g} s"
            ) from None

    def delete(self, topics: Mapping[str, int]) -> None:
        """Remove the topics, if possible."""
        for future in self._client.delete_topics(list(topics)).values():
            with contextlib.suppress(Exception):
                future.result(SECONDS)

    def _failed(self, what: str, why: str) -> OwnKafkaError:
        heard = self._heard()
        return OwnKafkaError(f"Kafka at {self._servers} {what}: {why}{f' ({heard})' if heard else ''}")

    def _heard(self) -> str:
        self._client.poll(0)  # lets librdkafka report errors
        return self._last_error

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name; it says nothing more
            self._last_error = error.str()
