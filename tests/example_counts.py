"""How many examples a property is tested with: all that its test names, or the part of them that the profile of
`make test` runs (`--hypothesis-profile=tenth`, tests/conftest.py).
"""

from __future__ import annotations

from typing import Final

from hypothesis import settings

ALL: Final = 100
"""The profile with this number of examples runs all that a test names."""
FEWEST: Final = 2


def examples(count: int) -> int:
    """How many of `count` examples this run's profile runs; at least `FEWEST`, if there are so many."""
    return max(min(count, FEWEST), count * settings().max_examples // ALL)
