"""Shows how far long work is.

In: what the work goes through, and how much of it there is at most. Out: the same, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from flagpost_consumer.operator.reconciliation.progress import progress

Item = TypeVar("Item")


def watched(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Go through `items`, and show it; `total` may be more than there are (offsets have holes)."""
    with progress(what, total) as advance:
        for item in items:
            yield item
            advance(1)
