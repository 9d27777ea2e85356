"""When Python's garbage collector walks through all objects (docs/decisions/0006).

In: how full the service is, now and then. Out: collections. Young objects are collected in steps of some
milliseconds; all objects are walked through while there are few.
"""

from __future__ import annotations

import gc

YOUNG = 5_000
"""After this many new objects the youngest are looked at: 3 to 9 ms of CPU."""
YOUNG_STEPS = 2
"""After this many such steps the objects that survived them are looked at."""
WORTHWHILE_STEPS = 1_000
"""After this many of those steps it is worth it to walk through everything: about a million events."""
HELD_BACK_STEPS = 100_000
"""After this many everything is walked through in any case: hours of uninterrupted load."""
QUIET_FULLNESS = 0.05
"""The part of the pending limit up to which everything can be walked through in a few milliseconds."""


def calm_collection() -> None:
    """Exclude permanent objects from collection, and collect the others in steps that block the loop only briefly."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, YOUNG_STEPS, HELD_BACK_STEPS)


def collect_if_quiet(fullness: float) -> None:
    """Walk through everything if that was put off for long and is quick now; `fullness`: 0 to 1."""
    _, _, steps = gc.get_count()
    if steps >= WORTHWHILE_STEPS and fullness <= QUIET_FULLNESS:
        gc.collect()
