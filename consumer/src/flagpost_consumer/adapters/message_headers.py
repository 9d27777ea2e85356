"""A message's headers, read so that no record can end the process.

In: a message of confluent-kafka's. Out: its headers, or UnreadableHeaders. Read them here and nowhere else: to a
broker a header's name may be any bytes, and where one is not UTF-8, `Message.headers()` (confluent-kafka 2.16,
c_headers_to_py in its confluent_kafka.c) sets an error and yet returns a list, with a null pointer in place of
that header.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import cast

from confluent_kafka import Message

from flagpost_consumer.core.record_weights import headers_weight
from flagpost_consumer.core.records import Headers

_read = cast("Callable[[Message], list[tuple[str, bytes | None]] | None]", methodcaller("headers"))
"""`message.headers()`, by a call that looks for the error. Written out in a function that runs often, it becomes one
that the interpreter has specialized, which does not: the list is used, and the process dies of the null pointer."""


class UnreadableHeaders(Exception):  # noqa: N818 - a fact about a record, told by an exception
    """A header's name is not UTF-8."""


_UNREADABLE: list[tuple[str, str | bytes | None]] = []
"""Put in the place of headers that cannot be read: the list with the null pointer would come the next time."""


def headers_of(message: Message) -> Headers:
    """The headers in their order, however often they are asked for. Raises UnreadableHeaders."""
    try:
        found = _read(message)
    except (SystemError, UnicodeDecodeError):
        message.set_headers(_UNREADABLE)
        raise UnreadableHeaders from None
    if found is _UNREADABLE:
        raise UnreadableHeaders
    return tuple(found or ())


def weight_of_headers(message: Message) -> int:
    """What the headers take in memory, in bytes; Kafka's client unpacks them as it is read from."""
    try:
        headers = headers_of(message)
    except Exception:  # noqa: BLE001 - whoever decodes the message tells
        return 0
    return headers_weight(headers) if headers else 0
