"""An admin client that asks Kafka for as long as the process lives.

In: a client's properties. Out: the client to ask with, and another one after it got no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka.admin import AdminClient

from flagpost_kafka import reach
from flagpost_settings.logs import kafka_logger


class RenewedAdmin:
    """The present client; it is made when it is first needed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._client: AdminClient | None = None

    def client(self) -> AdminClient:
        """The client to ask with."""
        if self._client is None:
            self._client = AdminClient(self._config, logger=kafka_logger())
        return self._client

    def renew(self) -> None:
        """Ask with another client from now on: this one may have lost its brokers (`flagpost_kafka.reach`)."""
        reach.let_go([self._client].clear)
        self._client = None
