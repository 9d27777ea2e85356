"""New event ids.

In: the clock and a random source. Out: version 7 UUIDs as text (RFC 9562 §5.7), which sort by time. Our own code,
because decide() waits for it: the uuid6 package takes 6 us there, and the system's randomness alone up to 9 us. A
Mersenne Twister seeded by the system is enough: ids must differ, but need not be secret.
"""

from __future__ import annotations

import time
from os import getpid
from random import Random

_random_of: dict[int, Random] = {getpid(): Random()}  # noqa: S311 - see above
"""By process id: a fork copies the random state, also a fork in C, for which there is no hook."""


def new_event_id(at_ms: int | None = None) -> str:
    """A version 7 UUID of `at_ms`, epoch milliseconds (default now), and 74 random bits.

    Safe across forks of any kind, and threads.
    """
    milliseconds = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    return event_id_of(milliseconds, (_random_of.get(getpid()) or _begin_anew()).getrandbits(74))


def event_id_of(milliseconds: int, randomness: int) -> str:
    """The same with 74 random bits from the caller, whose source must be this process's own."""
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 - half the time of an f-string
        milliseconds >> 16,
        milliseconds & 0xFFFF,
        randomness >> 62,
        0x8000 | randomness >> 48 & 0x3FFF,
        randomness & 0xFFFF_FFFF_FFFF,
    )


def _begin_anew() -> Random:
    """A new random source for this process. Takes no lock: a thread that a fork does not copy might hold it."""
    here = _random_of.setdefault(getpid(), Random())  # noqa: S311 - see above
    for process in list(_random_of):
        if process != getpid():
            _random_of.pop(process, None)
    return here
