"""The order in which metadata deliveries are settled.

In: deliveries as they begin, end, and are handed back. Out: those that may be settled now, and those that are to be
handed back after all.

Two deliveries that set the same field are settled in the order of their offsets. Whoever has the partition next
begins with what is not settled: if a newer value were settled before an older one, the older one would be sent last.
For the same reason a delivery that follows one that was handed back is handed back too, whatever Pendo answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from flagpost_consumer.core.mapping import Metadata
from flagpost_consumer.core.metadata_items import Item, Owner
from flagpost_consumer.core.outcomes import Ending, Outcome

_Field = tuple[str, str, str, str]
"""(`visitor` or `account`, id, group, field)"""


class SettlingOrder(Generic[Owner]):
    """All metadata deliveries that are not settled."""

    def __init__(self) -> None:
        self._last: dict[_Field, Item[Owner]] = {}
        """The delivery that came last, of those that are not settled, for each field."""
        self.settled: list[tuple[Item[Owner], Ending]] = []
        """Deliveries that are to be settled, in this order, since this was last emptied."""
        self.returned: list[Item[Owner]] = []
        """Deliveries that are to be handed back, since this was last emptied."""

    def __len__(self) -> int:
        """Of how many fields something is not settled."""
        return len(self._last)

    def holds(self, metadata: Metadata) -> bool:
        """Whether a delivery that sets one of these fields is not settled."""
        return any(key in self._last for key in _fields(metadata))

    def begin(self, item: Item[Owner]) -> None:
        """Take in a delivery; those of one partition come in the order of their offsets."""
        for key in _fields(item.metadata):
            before = self._last.get(key)
            # What was handed back before this one came is of an assignment that has ended.
            if before is not None and not before.removed:
                before.followers.append(item)
                item.blockers += 1
            self._last[key] = item

    def end(self, item: Item[Owner]) -> None:
        """No field of a delivery is open any more."""
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
        """Settle a delivery that no other is before, or hand it back; gives whether what follows it may go on."""
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
        # The ledger is written in order. A dead letter is written before its settlement, and that may take long:
        # until then the delivery may come again.
        return ending.outcome is not Outcome.DEAD_LETTERED

    def _pass(self, items: Iterable[Item[Owner]]) -> None:
        """Let go of deliveries that are not before others any more, and of those that only they held up."""
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
