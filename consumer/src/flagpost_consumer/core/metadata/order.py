"""The order in which metadata deliveries are settled.

In: deliveries as they begin, end, and are handed back. Out: those that may be settled now, and those that have to be
handed back after all.

Two deliveries that set the same field are settled in the order of their offsets. The partition's next member begins
with what is not settled: if a newer value were settled before an older one, the older one would be sent last. For the
same reason a delivery that follows one that was handed back is handed back too, whatever Pendo answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from flagpost_consumer.core.books.metadata_items import Item
from flagpost_consumer.core.metadata.items import Owner
from flagpost_consumer.core.outcomes import Ending, Outcome
from flagpost_consumer.core.planning.mapping import Metadata

_Field = tuple[str, str, str, str]
"""(`visitor` or `account`, id, group, field)"""


class SettlingOrder(Generic[Owner]):
    """All metadata deliveries that are not settled."""

    def __init__(self) -> None:
        self._last: dict[_Field, Item[Owner]] = {}
        """For each field, the latest delivery that is not settled."""
        self.settled: list[tuple[Item[Owner], Ending]] = []
        """Deliveries to settle, in this order, since this was last emptied."""
        self.returned: list[Item[Owner]] = []
        """Deliveries to hand back, since this was last emptied."""

    def __len__(self) -> int:
        """The number of fields with unsettled deliveries."""
        return len(self._last)

    def holds(self, metadata: Metadata) -> bool:
        """Whether a delivery that sets one of these fields is not settled."""
        return any(key in self._last for key in _fields(metadata))

    def begin(self, item: Item[Owner]) -> None:
        """Take in a delivery; those of one partition come in the order of their offsets."""
        for key in _fields(item.metadata):
            before = self._last.get(key)
            # A delivery that was handed back before this one came belongs to an assignment that has ended.
            if before is not None and not before.removed:
                before.followers.append(item)
                item.blockers += 1
            self._last[key] = item

    def end(self, item: Item[Owner]) -> None:
        """All fields of a delivery have ended."""
        if not item.blockers and self._ends(item):
            self._pass([item])

    def acknowledge(self, item: Item[Owner]) -> None:
        """Kafka has the dead letter of a delivery, and its settlement."""
        item.written = True
        if not item.blockers:
            self._pass([item])

    def give_back(self, items: Sequence[Item[Owner]]) -> None:
        """Deliveries are handed back."""
        for item in items:
            item.removed = True
        self._pass([item for item in items if not item.blockers])

    def _ends(self, item: Item[Owner]) -> bool:
        """Settle a delivery that waits for no other, or hand it back; returns whether those that follow it
        may go on.
        """
        if item.removed:
            return True
        if item.given_up:
            return item.written
        if item.open_fields:
            return False
        if item.follows_returned:
            item.removed = True
            self.returned.append(item)
            return True
        ending = item.ending()
        self.settled.append((item, ending))
        # The ledger is written in order. But a dead letter is written before its settlement, and that may take long:
        # until then the delivery may be read again.
        return ending.outcome is not Outcome.DEAD_LETTERED

    def _pass(self, items: Iterable[Item[Owner]]) -> None:
        """Deliveries no longer block others: release those that followed them, and what only these blocked."""
        passing = deque(items)
        last = self._last
        while passing:
            item = passing.popleft()
            for key in _fields(item.metadata):
                if last.get(key) is item:
                    del last[key]
            followers, item.followers = item.followers, []
            for follower in followers:
                follower.blockers -= 1
                follower.follows_returned |= item.removed and follower.partition == item.partition
                if not follower.blockers and self._ends(follower):
                    passing.append(follower)


def _fields(metadata: Metadata) -> Iterator[_Field]:
    return ((metadata.target, metadata.target_id, metadata.group, name) for name in metadata.values)
