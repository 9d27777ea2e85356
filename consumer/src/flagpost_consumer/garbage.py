"""When Python's collector of cyclic garbage walks through what lives (docs/decisions/0006).

In: how full the service is, now and then. Out: collections. Young garbage is collected in steps of some milliseconds;
all that lives is walked through while little does.
"""

from __future__ import annotations

import gc

YOUNG = 5_000
"""Objects after which the youngest are looked at: 3 to 9 ms of CPU."""
YOUNG_STEPS = 2
"""Such steps after which those that they left are looked at."""
WORTHWHILE_STEPS = 1_000
"""Of these steps in turn, after which it is worth it to walk through everything: about a million events."""
HELD_BACK_STEPS = 100_000
"""After so many everything is walked through in any case: hours of a load that never ends."""
QUIET_FULLNESS = 0.05
"""Of what may be pending: with so little in memory everything is walked through in a few milliseconds."""


def calm_collection() -> None:
    """Let what is there for good never be looked at again, and what comes in steps that hold the loop shortly."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, YOUNG_STEPS, HELD_BACK_STEPS)


def collect_if_quiet(fullness: float) -> None:
    """Walk through everything if that was put off for long and takes little; `fullness`: 0 to 1."""
    _, _, steps = gc.get_count()
    if steps >= WORTHWHILE_STEPS and fullness <= QUIET_FULLNESS:
        gc.collect()
