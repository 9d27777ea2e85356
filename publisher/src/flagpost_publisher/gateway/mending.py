"""Values that JSON can write, and Avro or Pendo cannot take, made into the nearest ones they can.

In: a parsed JSON value. Out: the same, mended. Segment's libraries let all of these through, and a refusal would
cost the whole batch: they do not send again what was answered 400.
"""

from __future__ import annotations

import math
from typing import Any

from flagpost_schemas.flatten import MAX_DEPTH

_INT64 = range(-(2**63), 2**63)


_DEPTH = MAX_DEPTH + 2
"""Of a message: itself, the levels of properties that flattening takes, and a list in the innermost."""


def mend(value: object, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON
    """Mend a value and what is in it, to `depth` levels; what lies deeper is refused or ignored anyhow.

    Half of a surrogate pair becomes U+FFFD, a whole number beyond 64 bits the text of its digits; a NaN or an
    infinity is left out of the object or list that holds it.
    """
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in _INT64 else str(value)
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {mend_text(name): mend(each, depth - 1) for name, each in value.items() if _has_value(each)}
    if isinstance(value, list):
        return [mend(each, depth - 1) for each in value if _has_value(each)]
    return value


def mend_text(text: str) -> str:
    """`text`, with U+FFFD for each half of a surrogate pair; JavaScript's slice() is where they come from."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _has_value(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
