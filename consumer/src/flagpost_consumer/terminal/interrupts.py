"""Ctrl-C, held back until the work can stop cleanly.

In: SIGINT. Out: whether it came. Python would raise KeyboardInterrupt anywhere, and an exception cannot leave a
delivery report of librdkafka (confluent-kafka 2.16 turns it into a SystemError).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """While the block runs, the first Ctrl-C is noted only; a second one ends the process at once.

    For the main thread.
    """
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)
