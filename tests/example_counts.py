"""How many examples a property is tried with: all that its test names, or the share that the profile of
`make test` (`--hypothesis-profile=tenth`, tests/conftest.py) leaves of them.
"""

from __future__ import annotations

from typing import Final

from hypothesis import settings

ALL: Final = 100
"""The number of examples of the profile under which a test has all that it names."""
FEWEST: Final = 2


def examples(count: int) -> int:
    """Of so many, what the profile of this run leaves: never none."""
    return max(min(count, FEWEST), count * settings().max_examples // ALL)
