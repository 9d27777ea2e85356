"""The records of the suppressions topic (docs/contract.md#topics).

In: keys and values. Out: which visitor is suppressed or not. A value that cannot be read also suppresses: sending
what was forbidden is worse than holding back what was allowed, and an undo is a record without a value.
"""

from __future__ import annotations

import orjson

from flagpost_consumer.core.planning.suppressions import Suppression


class NoVisitor(ValueError):  # noqa: N818 (a fact about a record)
    """The key is not a visitor id."""


def read_suppression(key: bytes | None, value: bytes | None) -> Suppression:
    """Parse a record. Raises NoVisitor."""
    try:
        visitor_id = (key or b"").decode()
    except UnicodeDecodeError:
        raise NoVisitor("its key is not UTF-8") from None
    if not visitor_id:
        raise NoVisitor("it has no key")
    return Suppression(visitor_id, value is not None)


def suppressed_at(value: bytes | None) -> int | None:
    """When the visitor was suppressed, epoch ms, if the value says so."""
    try:
        at = orjson.loads(value or b"")["at"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return at if isinstance(at, int) and not isinstance(at, bool) else None


def suppression_value(at_ms: int) -> bytes:
    """The value that suppresses a visitor."""
    return orjson.dumps({"at": at_ms})
