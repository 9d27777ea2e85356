"""Finds the end of a batch that Kafka's client cannot read, because it is too large when decompressed, or damaged.

In: the offset at which the batch begins, and the result at each place that was tried. Out: the next place to try, and
in the end the first offset behind the batch. The client names only the batch's first offset, and a fetch at any of
its offsets returns the same batch; so it tries in growing steps, and then halves.
"""

from __future__ import annotations


class BatchEnd:
    """The search for the end of one batch."""

    def __init__(self, base: int, log_end: int) -> None:
        """`log_end`: the offset after the log's last record; the batch ends there at the latest."""
        self.base = base
        self._within = base
        """The last offset that is known to be in the batch."""
        self._behind = max(log_end, base + 1)
        """The first offset that is known to be behind it."""
        self._step = 1
        self._is_bracketed = False

    @property
    def found(self) -> int | None:
        """The first offset behind the batch, once it is known."""
        return self._behind if self._behind == self._within + 1 else None

    @property
    def place(self) -> int:
        """The offset to read at next."""
        if self._is_bracketed or self._within + self._step >= self._behind:
            return (self._within + self._behind + 1) // 2
        return self._within + self._step

    def unreadable(self, base: int) -> None:
        """At the tried place a batch begins at `base` that cannot be read."""
        if base > self.base:  # the next batch cannot be read either
            self._behind, self._is_bracketed = min(self._behind, base), True
        else:
            self._within = self.place
            self._step *= 2

    def readable(self) -> None:
        """The tried place can be read, or is the log's end."""
        self._behind, self._is_bracketed = self.place, True
