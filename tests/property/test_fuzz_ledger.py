"""Damaged ledger records, as a restart reads them: their cost is bounded by their length."""

from __future__ import annotations

from typing import SupportsIndex, overload

import pytest

from flagpost_consumer.adapters.ledger.entries import HEADER, read_part
from flagpost_schemas import UndecodableRecord


class Counted(bytes):
    """Counts how many of its bytes are looked at one by one."""

    looked_at = 0

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | bytes:
        self.looked_at += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("endless", [b"\xff" * 1_000_000, b"\x80" * 1_000_000])
def test_a_number_without_end_is_given_up_after_ten_bytes(endless: bytes) -> None:
    value = Counted(HEADER + endless)
    with pytest.raises(UndecodableRecord):
        read_part(value)
    assert value.looked_at < 30  # by both quick readers together
