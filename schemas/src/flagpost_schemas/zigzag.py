"""Avro's whole numbers, read from the bytes: zigzag, seven bits a byte, the lowest first.

In: bytes, and a place in them. Out: the number, and where it ends.
"""

from __future__ import annotations

_LAST_SHIFT = 63
"""The shift of the tenth byte, which is the last that a 64-bit number can have."""


class Unusual(Exception):  # noqa: N818 - a fact: whoever reads leaves the bytes to fastavro
    """Bytes that Flagpost does not write; possibly damaged."""


def read_long(value: bytes, at: int) -> tuple[int, int]:
    """Read a 64-bit number. Raises Unusual for a longer one, IndexError if the bytes end too early."""
    number = value[at]
    at += 1
    if number > 127:
        number &= 127
        shift = 7
        while (byte := value[at]) > 127:
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if shift > _LAST_SHIFT:  # without a limit, each byte would cost more than the one before
                raise Unusual
        at += 1
        number |= byte << shift
        if number >> 64:
            raise Unusual
    return (number >> 1) ^ -(number & 1), at
