"""Limits the memory that glibc keeps after it was freed.

In: nothing. Out: a process whose heap stays small. Call it before threads start.

The page's threads, and librdkafka's, which are new ones whenever Kafka was unreachable, each get a heap of their own,
up to eight for each core, and fetch buffers leave holes in it between what stays. A page that followed 13,500
decisions through three restarts of the broker had 93 MB on its heaps, of which 73 MB were free and none was returned.
With two heaps, and large buffers outside of them, it is 34 MB, of which 14 are free.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""Names from glibc's malloc.h."""
HEAPS: Final = 2
LARGE_BYTES: Final = 64 * 1024
"""A buffer of at least this size is not part of a heap: it is returned as soon as it is free."""
FREE_AT_THE_END_BYTES: Final = 128 * 1024


def keep_heap_small() -> None:
    """Limit the heap; does nothing with another C library, which does not know these names."""
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, HEAPS)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, FREE_AT_THE_END_BYTES)
