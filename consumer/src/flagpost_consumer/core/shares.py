"""Fair shares of what may be pending.

In: what each visitor's line holds, and the room there is for all. Out: the most that one line may hold, so that all
fit and no line is cut that is shorter.
"""

from __future__ import annotations

from collections.abc import Iterable


def fair_share(holdings: Iterable[int], room: int) -> int:
    """The greatest share with which the sum of min(holding, share) is at most `room` (max-min fairness).

    It is at least the greatest holding where everything fits.
    """
    left = room
    sizes = sorted(holdings)
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            return max(0, share)
        left -= size
    return max(room, 0)
