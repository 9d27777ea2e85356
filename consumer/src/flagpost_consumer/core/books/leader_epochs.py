"""Which of a partition's leaders wrote each record, told by the leader's epoch.

In: where each epoch begins, as the partition is read; what of it is settled. Out: the last settled offset of each
epoch, as text that goes with a ledger record; the epoch before an offset, for a commit; and whether a record belongs
to another log than what is settled.

Epochs only rise along a log. So a new leader's record at or below a settled offset of an older leader shows that the
log has gone back in between: the settled record is gone from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

MAX_EPOCHS = 32
"""Changes of a partition's leader that are remembered; below all of them the epoch is unknown: a commit has none."""


class LeaderEpochs:
    """The epochs of one partition, as far as it has been read during one assignment."""

    def __init__(self) -> None:
        self._stretches: deque[tuple[int, int]] = deque(maxlen=MAX_EPOCHS)
        """(first offset, leader epoch) of each stretch of the log."""

    def begins(self, offset: int, epoch: int) -> None:
        """Note that what is read from an offset on was written under this epoch."""
        self._stretches.append((offset, epoch))

    def last_of_each(self, offsets: Iterable[int]) -> dict[int, int]:
        """Each epoch that wrote some of these offsets, and the last of them that it wrote."""
        found: dict[int, int] = {}
        left = list(offsets)
        for first, epoch in reversed(self._stretches):
            if last := [offset for offset in left if offset >= first]:
                found.setdefault(epoch, max(last))
                left = [offset for offset in left if offset < first]
        return found

    def before(self, offset: int) -> int | None:
        """The epoch of the record before an offset; None: unknown. Forgets the stretches before that record's: ask
        with offsets that only rise.
        """
        while len(self._stretches) > 1 and self._stretches[1][0] < offset:
            self._stretches.popleft()
        return self._stretches[0][1] if self._stretches and self._stretches[0][0] < offset else None


def is_of_another_log(offset: int, epoch: int, settled: Mapping[int, int]) -> bool:
    """Whether the record at an offset shows that the log has gone back since something was settled.

    `settled`: the last settled offset of each epoch.
    """
    return any(older < epoch and last >= offset for older, last in settled.items())


def write_epochs(last_of_each: Mapping[int, int]) -> bytes:
    """`epoch:last offset`, with commas between."""
    return ",".join(f"{epoch}:{last}" for epoch, last in sorted(last_of_each.items())).encode()


def read_epochs(text: bytes | None) -> dict[int, int]:
    """Parse what `write_epochs` has written; empty if that cannot be done."""
    try:
        parts = [part.split(b":") for part in (text or b"").split(b",") if part]
        return {int(epoch): int(last) for epoch, last in parts}
    except ValueError:
        return {}
