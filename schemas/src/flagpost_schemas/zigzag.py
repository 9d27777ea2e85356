"""Avro's whole numbers, read from the bytes: zigzag, seven bits a byte, the lowest first.

In: bytes, and a place in them. Out: the number, and where it ends.
"""

from __future__ import annotations

_LAST_SHIFT = 63
"""Of the tenth byte, which is the last that a number of 64 bits can have."""


class Unusual(Exception):  # noqa: N818 - a fact: whoever reads leaves the bytes to fastavro
    """Bytes that are not what Flagpost writes; perhaps damaged."""


def read_long(value: bytes, at: int) -> tuple[int, int]:
    """Read a number of 64 bits. Raises Unusual for a longer one, IndexError where the bytes end before it does."""
    number = value[at]
    at += 1
    if number > 127:
        number &= 127
        shift = 7
        while (byte := value[at]) > 127:
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if shift > _LAST_SHIFT:  # without end, each byte would cost more than the one before
                raise Unusual
        at += 1
        number |= byte << shift
        if number >> 64:
            raise Unusual
    return (number >> 1) ^ -(number & 1), at
