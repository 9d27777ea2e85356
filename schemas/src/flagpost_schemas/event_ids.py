"""New event ids.

In: the clock and a random source. Out: version 7 UUIDs as text (RFC 9562 §5.7): they sort by time.
Made by hand, as decide() waits for it: the uuid6 package takes 6 us there, and the system's randomness alone
up to 9 us. A Mersenne Twister seeded by the system does: ids must differ, they need not be secret.
"""

from __future__ import annotations

import os
import time
from random import Random

_random = Random()  # noqa: S311 - see above
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_random.seed)

_VERSION = 7 << 76
_VARIANT = 0b10 << 62
_LOW_62_BITS = (1 << 62) - 1


def new_event_id() -> str:
    """A version 7 UUID of now: 48 bits of epoch milliseconds, 74 random bits. Safe across forks and threads."""
    randomness = _random.getrandbits(74)
    milliseconds = time.time_ns() // 1_000_000
    low = _VARIANT | randomness & _LOW_62_BITS
    digits = f"{milliseconds << 80 | _VERSION | randomness >> 62 << 64 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
