"""What each visitor or account holds of memory by its pending metadata.

In: deliveries as they begin and end. Out: the sums, and which deliveries are the newest of whoever holds too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from flagpost_consumer.core.metadata_items import Item, Owner
from flagpost_consumer.core.shares import fair_share

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

    def __init__(self) -> None:
        self._held: dict[Key, _Held[Owner]] = {}
        self.behind = 0
        """Deliveries that wait behind another of the same id."""
        self.behind_bytes = 0

    def __len__(self) -> int:
        """Of how many ids something is pending."""
        return len(self._held)

    def add(self, item: Item[Owner], size_bytes: int) -> None:
        """A delivery begins."""
        held = self._held.setdefault(_key(item), _Held())
        with _Change(self, held):
            held.items[item] = size_bytes
            held.size_bytes += size_bytes

    def discard(self, item: Item[Owner]) -> None:
        """A delivery has ended, or was handed back."""
        held = self._held.get(_key(item))
        if held is None or item not in held.items:
            return
        with _Change(self, held):
            held.size_bytes -= held.items.pop(item)
        if not held.items:
            del self._held[_key(item)]

    def beyond_fair_share(self, room: int, room_bytes: int) -> Iterator[Item[Owner]]:
        """Discard and return the newest deliveries of ids that hold more than their share, but none in flight."""
        if self.behind <= room and self.behind_bytes <= room_bytes:
            return
        share = fair_share((held.behind for held in self._held.values()), room)
        share_bytes = fair_share((held.behind_bytes for held in self._held.values()), room_bytes)
        for held in list(self._held.values()):
            for item in list(_newest(held.items)):
                if held.behind <= share and held.behind_bytes <= share_bytes:
                    break
                self.discard(item)
                yield item


class _Change(Generic[Owner]):
    """Keeps the sums while one id's holdings change."""

    def __init__(self, holdings: Holdings[Owner], held: _Held[Owner]) -> None:
        self._holdings = holdings
        self._held = held

    def __enter__(self) -> None:
        self._holdings.behind -= self._held.behind
        self._holdings.behind_bytes -= self._held.behind_bytes

    def __exit__(self, *_: object) -> None:
        self._holdings.behind += self._held.behind
        self._holdings.behind_bytes += self._held.behind_bytes


def _newest(items: dict[Item[Owner], int]) -> Iterable[Item[Owner]]:
    return (item for item in reversed(items) if not item.flying)


def _key(item: Item[Owner]) -> Key:
    return item.metadata.target, item.metadata.target_id
