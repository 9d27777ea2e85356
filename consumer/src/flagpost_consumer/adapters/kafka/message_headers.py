"""A message's headers, read so that no record can crash the process.

In: a message of confluent-kafka's. Out: its headers, or UnreadableHeaders. Read headers only here: for a broker a
header's name may be any bytes, and if one is not UTF-8, `Message.headers()` (confluent-kafka 2.16, c_headers_to_py in
its confluent_kafka.c) sets an error and yet returns a list, with a null pointer in place of that header.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import cast

from confluent_kafka import Message

from flagpost_consumer.core.record_weights import headers_weight
from flagpost_consumer.core.records import Headers

_read = cast("Callable[[Message], list[tuple[str, bytes | None]] | None]", methodcaller("headers"))
"""`message.headers()`, called in a way that checks for the error. Written as a method call in a function that runs
often, the interpreter specializes it to a call without that check: the list is used, and the null pointer crashes the
process.
"""


class UnreadableHeaders(Exception):  # noqa: N818 - a fact about a record, told by an exception
    """A header's name is not UTF-8."""


_UNREADABLE: list[tuple[str, str | bytes | None]] = []
"""Put in place of headers that cannot be read: otherwise the next call would return the list with the null
pointer.
"""


def headers_of(message: Message) -> Headers:
    """The headers in order; may be called repeatedly. Raises UnreadableHeaders."""
    try:
        found = _read(message)
    except (SystemError, UnicodeDecodeError):
        message.set_headers(_UNREADABLE)
        raise UnreadableHeaders from None
    if found is _UNREADABLE:
        raise UnreadableHeaders
    return tuple(found or ())


def weight_of_headers(message: Message) -> int:
    """Bytes that the headers take in memory; Kafka's client unpacks them when a message is read."""
    try:
        headers = headers_of(message)
    except Exception:  # noqa: BLE001 - whoever decodes the message tells
        return 0
    return headers_weight(headers) if headers else 0
