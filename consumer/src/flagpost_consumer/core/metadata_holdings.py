"""What each visitor or account holds of memory by its pending metadata.

In: deliveries as they begin and end. Out: the sums, and which deliveries are the newest of whoever holds too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from flagpost_consumer.core.metadata_items import Item, Owner
from flagpost_consumer.core.shares import Room

Key = tuple[str, str]
"""(`visitor` or `account`, id)"""


class _Held(Generic[Owner]):
    """The pending deliveries of one id, the newest last, with their bytes."""

    __slots__ = ("items", "size_bytes")

    def __init__(self) -> None:
        self.items: dict[Item[Owner], int] = {}
        self.size_bytes = 0

    @property
    def behind(self) -> int:
        """Those that wait behind another."""
        return max(0, len(self.items) - 1)

    @property
    def behind_bytes(self) -> int:
        """Their bytes."""
        return self.size_bytes - next(iter(self.items.values())) if self.items else 0


class Holdings(Generic[Owner]):
    """All pending metadata deliveries, by id."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held: dict[Key, _Held[Owner]] = {}
        self._hoards: dict[Key, _Held[Owner]] = {}
        """Ids of which more waits than each may have in any case."""

    def __len__(self) -> int:
        """Of how many ids something is pending."""
        return len(self._held)

    def add(self, item: Item[Owner], size_bytes: int) -> None:
        """A delivery begins."""
        key = item.metadata.key
        held = self._held.setdefault(key, _Held())
        held.items[item] = size_bytes
        held.size_bytes += size_bytes
        self._note(key, held)

    def discard(self, item: Item[Owner]) -> None:
        """A delivery has ended, or was handed back."""
        key = item.metadata.key
        held = self._held.get(key)
        if held is None or item not in held.items:
            return
        held.size_bytes -= held.items.pop(item)
        self._note(key, held)
        if not held.items:
            del self._held[key]

    def beyond_fair_share(self) -> Iterator[Item[Owner]]:
        """Discard and return the newest deliveries of ids that hold more than their share, but none in flight."""
        hoards = list(self._hoards.values())
        allowed = self._room.allow(
            [held.behind for held in hoards], [held.behind_bytes for held in hoards]
        ) or self._alone(hoards)
        if allowed is None:
            return
        count, size_bytes = allowed
        for held in hoards:
            for item in list(_newest(held.items)):
                if held.behind <= count and held.behind_bytes <= size_bytes:
                    break
                self.discard(item)
                yield item

    def _alone(self, hoards: list[_Held[Owner]]) -> tuple[int, int] | None:
        """One id alone may fill its room, and no more."""
        return (self._room.count, self._room.size_bytes) if hoards else None

    def _note(self, key: Key, held: _Held[Owner]) -> None:
        if held.behind > self._room.least or held.behind_bytes > self._room.least_bytes:
            self._hoards[key] = held
        elif self._hoards:
            self._hoards.pop(key, None)


def _newest(items: dict[Item[Owner], int]) -> Iterable[Item[Owner]]:
    return (item for item in reversed(items) if not item.flying)
