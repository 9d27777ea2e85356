"""The records of the suppressions topic (CONTRACT section 2).

In: keys and values. Out: what each says of which visitor. A value that cannot be read suppresses all the same: to
send what was forbidden is worse than to hold back what was allowed, and an undo is a record without a value.
"""

from __future__ import annotations

import orjson

from flagpost_consumer.core.suppressions import Suppression


class NoVisitor(ValueError):  # noqa: N818 (a fact about a record)
    """The key names no visitor."""


def read_suppression(key: bytes | None, value: bytes | None) -> Suppression:
    """What a record says. Raises NoVisitor."""
    try:
        visitor_id = (key or b"").decode()
    except UnicodeDecodeError:
        raise NoVisitor("its key is no UTF-8") from None
    if not visitor_id:
        raise NoVisitor("it has no key")
    return Suppression(visitor_id, value is not None)


def suppressed_at(value: bytes | None) -> int | None:
    """When the visitor was suppressed, epoch ms, where the value tells."""
    try:
        at = orjson.loads(value or b"")["at"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return at if isinstance(at, int) and not isinstance(at, bool) else None


def suppression_value(at_ms: int) -> bytes:
    """The value that suppresses."""
    return orjson.dumps({"at": at_ms})
