"""What the engine asks of the shell.

In: nothing. Out: requests to make, settlements to write, when to call again, and what must not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flagpost_consumer.core.books.deliveries import Duplicates, Settlement
from flagpost_consumer.core.pendo.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Actions:
    """What the shell is to do after a call of the engine."""

    attempts: list[Attempt]
    settlements: list[Settlement]
    wake_at: float | None
    """The monotonic second at which to poll again, if nothing happens before."""
    intake_paused: bool
    """True: read no partition."""
    partitions_paused: frozenset[int] = frozenset()
    """Partitions that must not be read, while others may."""
    duplicates: Sequence[Duplicates] = ()
    """To be written like settlements."""
