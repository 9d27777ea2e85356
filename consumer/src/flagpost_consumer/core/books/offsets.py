"""Which offset of a partition may be committed.

In: offsets as they are taken in and as they are settled, in any order. Out: the position below which all is
settled. Offsets may have holes (transactions, compaction): a hole is not a loss.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Offsets(Generic[Entry]):
    """The unsettled records of one partition, in the order of their offsets; every operation is O(1)."""

    def __init__(self, position: int | None = None) -> None:
        self.position = position
        """The offset from which records are taken in; None until it is known."""
        self._unsettled: OrderedDict[int, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._unsettled)

    def take(self, offset: int, entry: Entry) -> None:
        """Note a record that is taken in; offsets rise."""
        self._unsettled[offset] = entry
        self.position = offset + 1

    def entry(self, offset: int) -> Entry:
        """The entry that was taken in at an offset and is not settled."""
        return self._unsettled[offset]

    def pass_over(self, offset: int) -> None:
        """Note a record that was settled before it was read."""
        self.position = offset + 1

    def lose(self, first: int, next_offset: int, entry: Entry) -> None:
        """Note a gap, which stops the position until `settle(first)`."""
        self._unsettled[first] = entry
        self.position = next_offset

    def settle(self, offset: int) -> None:
        """Note that all deliveries of a record are settled and acknowledged."""
        del self._unsettled[offset]

    def committable(self) -> int | None:
        """The position below which every record is settled; None until one is known."""
        return next(iter(self._unsettled), self.position)

    def __contains__(self, offset: int) -> bool:
        return offset in self._unsettled

    def clear(self) -> None:
        """Drop all records: the partition is another member's."""
        self._unsettled.clear()

    def oldest(self) -> Entry | None:
        """The unsettled record with the lowest offset."""
        return next(iter(self._unsettled.values()), None)

    def unsettled(self) -> list[Entry]:
        """All records that are not settled, in order."""
        return list(self._unsettled.values())
