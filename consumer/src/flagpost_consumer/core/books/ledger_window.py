"""How far back in the ledger a restart has to read.

In: each ledger record of a partition as it is written or restored: its offset, and what it is about. Out: the oldest
ledger offset that still matters, which goes with the offset commit. A record matters while it holds a claim that may
have duplicates, or settles an offset that is not committed. A ledger topic that is created anew begins at 0 again:
then all of it matters for as long as the records of the old one would have.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

CHUNK_ENTRIES = 1000
"""Records are remembered in chunks of this many settlements: a restart may read this many too many."""


OUT_OF_ORDER = 1000
"""Acknowledgements of one partition may arrive out of order within this many offsets."""


@dataclass(slots=True)
class _Chunk:
    first: int
    entries: int = 0
    newest_claim_ms: int = -1
    highest_offset: int = -1


class LedgerWindow:
    """The part of one partition's ledger that is needed."""

    def __init__(self) -> None:
        self._chunks: deque[_Chunk] = deque()
        self._next: int | None = None
        self.settles_from = 0
        """Ledger records below this offset settle nothing; they may hold claims."""

    def note(self, ledger_offset: int, entries: int, newest_claim_ms: int, highest_offset: int) -> None:
        """Note a ledger record. -1: it has no claim, or settles nothing.

        Offsets rise; one that is far below the others shows that the ledger is a new one.
        """
        if self._next is not None and ledger_offset < self._next - OUT_OF_ORDER:
            self.ledger_replaced()
        if not self._chunks or self._chunks[-1].entries >= CHUNK_ENTRIES:
            self._chunks.append(_Chunk(ledger_offset))
        chunk = self._chunks[-1]
        chunk.entries += entries
        chunk.newest_claim_ms = max(chunk.newest_claim_ms, newest_claim_ms)
        chunk.highest_offset = max(chunk.highest_offset, highest_offset)
        self._next = max(ledger_offset + 1, self._next or 0)

    def ledger_replaced(self) -> None:
        """The ledger is a new one: its beginning is needed for as long as the old one's records would have been."""
        first = _Chunk(
            0,
            CHUNK_ENTRIES,
            max((chunk.newest_claim_ms for chunk in self._chunks), default=-1),
            max((chunk.highest_offset for chunk in self._chunks), default=-1),
        )
        self._chunks = deque([first])
        self._next = 0
        self.settles_from = 0

    def begin_at(self, ledger_offset: int) -> None:
        """The ledger has been read up to here."""
        self._next = ledger_offset

    def oldest_needed(self, position: int, claims_from_ms: int) -> int | None:
        """Where a restart begins to read after `position` was committed; None while nothing is known."""
        while self._chunks and not _is_needed(self._chunks[0], position, claims_from_ms):
            self._chunks.popleft()
        return self._chunks[0].first if self._chunks else self._next


def _is_needed(chunk: _Chunk, position: int, claims_from_ms: int) -> bool:
    # Before the first claim, `claims_from_ms` lies before 1970; "no claim" (-1) must not count as a claim after it.
    return chunk.highest_offset >= position or chunk.newest_claim_ms >= max(claims_from_ms, 0)
