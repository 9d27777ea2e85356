"""Ids whose metadata waits to be batched.

In: ids with the bytes of what they have to send. Out: the ids of one request: as many as it may have, in the order in
which they came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf


class Queue:
    """The ids of one kind whose values of one group wait."""

    def __init__(self, batch_size: int, batch_bytes: int) -> None:
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._ids)

    def enter(self, target_id: str, size: int, since: float) -> None:
        """An id begins to wait."""
        self._ids[target_id] = since
        self._bytes += size

    def enter_first(self, target_id: str, size: int) -> None:
        """An id that has already waited goes with the next request."""
        self.enter(target_id, size, -inf)
        self._ids.move_to_end(target_id, last=False)

    def grow(self, target_id: str, size: int) -> None:
        """What a waiting id has to send has grown by `size` bytes, or shrunk."""
        if target_id in self._ids:
            self._bytes += size

    def leave(self, target_id: str, size: int) -> None:
        """An id no longer waits."""
        if self._ids.pop(target_id, None) is not None:
            self._bytes -= size

    def __contains__(self, target_id: str) -> bool:
        return target_id in self._ids

    def leaves_at(self, linger_seconds: float) -> float | None:
        """When the first ids go: once there are enough for a request, or once they have waited for
        `linger_seconds`.
        """
        if not self._ids:
            return None
        since = next(iter(self._ids.values()))
        enough = len(self._ids) >= self._batch_size or self._bytes >= self._batch_bytes
        return since if enough else since + linger_seconds
