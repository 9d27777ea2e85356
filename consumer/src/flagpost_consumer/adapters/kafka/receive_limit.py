"""How large a broker's response to a consumer may be: small, until a broker has a larger one.

A broker returns a batch as a whole, however large it is. librdkafka rejects a response above
`receive.message.max.bytes`: it drops the connection and asks again, for ever, so that one batch stops every partition
of that broker. A batch can be so large only if the topic's `max.message.bytes` allows it.

In: the properties of the consumer, and its errors. Out: properties for the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError

PROPERTY: Final = "receive.message.max.bytes"
LIBRDKAFKAS_BYTES: Final = 100_000_000
"""librdkafka's default."""
MOST_BYTES: Final = 2_147_483_647
"""The most that librdkafka allows."""

_TOO_LARGE = re.compile(r"Invalid response size (\d+)")


class ReceiveLimit:
    """The limit of one consumer and of those that follow it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._bytes = int(config.get(PROPERTY, LIBRDKAFKAS_BYTES))
        self.needed_bytes = 0
        """The size of the largest response that was rejected; 0 if none was above the limit."""

    def hear(self, error: KafkaError) -> None:
        """Note an error of the consumer: librdkafka's `error_cb`."""
        if error.code() == KafkaError._BAD_MSG and (found := _TOO_LARGE.search(error.str())):  # noqa: SLF001 (its public name)
            self.needed_bytes = max(self.needed_bytes, int(found[1]))

    @property
    def is_too_small(self) -> bool:
        """Whether a response was rejected for its size, and a larger limit is possible."""
        return self._bytes < min(self.needed_bytes, MOST_BYTES)

    def grow(self) -> int:
        """Double the limit until the rejected response fits, and return it. So it grows only a few times."""
        while self.is_too_small:
            self._bytes = min(2 * self._bytes, MOST_BYTES)
        return self._bytes

    def within(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Properties with this limit."""
        return {**config, PROPERTY: self._bytes}
