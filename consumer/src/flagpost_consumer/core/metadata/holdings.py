"""How much memory the pending metadata of each visitor or account takes.

In: deliveries as they begin and end. Out: the sums, and the newest deliveries of each id that holds too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.books.shares import Holding, Room
from flagpost_consumer.core.metadata.items import Owner

Key = tuple[str, str]
"""(`visitor` or `account`, id)"""


class _Held(Generic[Owner]):
    """The pending deliveries of one id, the newest last, with their bytes."""

    __slots__ = ("items", "size_bytes")

    def __init__(self) -> None:
        self.items: dict[Item[Owner], tuple[int, float]] = {}
        """Each with its bytes, and the time at which it came."""
        self.size_bytes = 0

    @property
    def behind(self) -> Holding:
        """What waits behind the first."""
        if not self.items:
            return Holding(0, 0)
        size_bytes, _ = self._oldest
        return Holding(len(self.items) - 1, self.size_bytes - size_bytes)

    @property
    def since(self) -> float:
        """When the oldest of them came."""
        return self._oldest[1]

    @property
    def _oldest(self) -> tuple[int, float]:
        return next(iter(self.items.values()))


class Holdings(Generic[Owner]):
    """All pending metadata deliveries, by id."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held: dict[Key, _Held[Owner]] = {}
        self._hoards: dict[Key, _Held[Owner]] = {}
        """Ids for which more waits than any id may always have."""

    def __len__(self) -> int:
        """The number of ids with pending deliveries."""
        return len(self._held)

    def add(self, item: Item[Owner], size_bytes: int, now: float) -> None:
        """A delivery begins."""
        key = item.metadata.key
        held = self._held.setdefault(key, _Held())
        held.items[item] = size_bytes, now
        held.size_bytes += size_bytes
        self._note(key, held)

    def discard(self, item: Item[Owner]) -> None:
        """A delivery has ended, or was handed back."""
        key = item.metadata.key
        held = self._held.get(key)
        if held is None or item not in held.items:
            return
        held.size_bytes -= held.items.pop(item)[0]
        self._note(key, held)
        if not held.items:
            del self._held[key]

    def beyond_fair_share(self, before: float) -> Iterator[Item[Owner]]:
        """Discard and return the newest deliveries of ids that hold more than their share, except those in flight.

        `before`: an id whose deliveries all came after this moment is not cut, because a backlog that was just read
        looks the same.
        """
        hoards = [held for held in self._hoards.values() if held.since <= before]
        # With a single id there is no share to compute: it may fill the room, but not more.
        share = self._room.share([held.behind for held in hoards]) or self._room.whole
        most = share.or_more(self._room.least_metadata)
        for held in hoards:
            for item in list(_newest(held.items)):
                if not held.behind.exceeds(most):
                    break
                self.discard(item)
                yield item

    def _note(self, key: Key, held: _Held[Owner]) -> None:
        if held.behind.exceeds(self._room.least_metadata):
            self._hoards[key] = held
        elif self._hoards:
            self._hoards.pop(key, None)


def _newest(items: dict[Item[Owner], tuple[int, float]]) -> Iterable[Item[Owner]]:
    return (item for item in reversed(items) if not item.flying)
