"""What a partition's ledger settles beyond the committed offset: it is not planned a second time.

In: offsets and kinds from the ledger. Out: the kinds that are settled for a record; asked once for each record, in
the order of the offsets. There may be a million, so a record takes one byte.
"""

from __future__ import annotations

from flagpost_consumer.core.outcomes import Kind

CHUNK_OFFSETS = 4096
BIT_OF = {kind: 1 << number for number, kind in enumerate(Kind)}


class SettledBefore:
    """Settled deliveries of one partition, from before it was assigned here."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._asked = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, offset: int, kind: Kind) -> None:
        """Note that a delivery of the record at an offset is settled."""
        number, place = divmod(offset, CHUNK_OFFSETS)
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = bytearray(CHUNK_OFFSETS)
        chunk[place] |= BIT_OF[kind]

    def has(self, offset: int, kind: Kind) -> bool:
        """Whether a delivery is settled; unlike `kinds` it may be asked for any offset."""
        number, place = divmod(offset, CHUNK_OFFSETS)
        chunk = self._chunks.get(number)
        return chunk is not None and bool(chunk[place] & BIT_OF[kind])

    def kinds(self, offset: int) -> frozenset[Kind]:
        """The kinds that are settled for the record at an offset; lower offsets cannot be asked for afterwards."""
        number, place = divmod(offset, CHUNK_OFFSETS)
        if number > self._asked:
            self._asked = number
            self._drop_below(number)
        chunk = self._chunks.get(number)
        if chunk is None or not chunk[place]:
            return frozenset()
        return frozenset(kind for kind, bit in BIT_OF.items() if chunk[place] & bit)

    def _drop_below(self, number: int) -> None:
        for outdated in [chunk for chunk in self._chunks if chunk < number]:
            del self._chunks[outdated]
