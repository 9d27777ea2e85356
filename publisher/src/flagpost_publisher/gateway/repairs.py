"""Repairs values that JSON can hold but Avro or Pendo cannot: it uses the nearest value that they can.

In: a parsed JSON value. Out: the same, repaired. Segment's libraries send all of these, and a refusal would cost the
whole batch: they do not retry after a 400.
"""

from __future__ import annotations

import math
from typing import Any

from flagpost_schemas.flatten import MAX_DEPTH

_INT64 = range(-(2**63), 2**63)


_DEPTH = MAX_DEPTH + 2
"""The depth of a message: itself, the levels of properties that flattening takes, and a list in the innermost."""


def repaired(value: object, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON
    """Repair a value and its contents, to `depth` levels; what is deeper is refused or ignored anyway.

    Half of a surrogate pair becomes U+FFFD, a whole number beyond 64 bits the text of its digits; a NaN or infinity
    is removed from its object or list.
    """
    if isinstance(value, str):
        return repaired_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in _INT64 else str(value)
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {
            repaired_text(name): repaired(each, depth - 1) for name, each in value.items() if _has_value(each)
        }
    if isinstance(value, list):
        return [repaired(each, depth - 1) for each in value if _has_value(each)]
    return value


def repaired_text(text: str) -> str:
    """`text`, with U+FFFD for each half of a surrogate pair; JavaScript's slice() produces them."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _has_value(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
