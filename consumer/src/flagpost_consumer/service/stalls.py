"""Which partitions make no progress, and why: for `flagpost_stalled` and /status.

In: every part that can hold up a partition. Out: one reason for each partition: the one to be dealt with first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.dead_letter_writer import DeadLetterWriter
from flagpost_consumer.adapters.kafka.decoding import Decoding
from flagpost_consumer.adapters.kafka.intake_handler import Lag
from flagpost_consumer.adapters.ledger.writer import LedgerWriter
from flagpost_consumer.core.books.reading_watch import ReadingWatch
from flagpost_consumer.core.books.stalls import Stall, Stalled
from flagpost_consumer.core.engine import Engine


class Stalls:
    """The stalled partitions of one process."""

    def __init__(
        self, engine: Engine, decoding: Decoding, dead_letters: DeadLetterWriter, ledger: LedgerWriter
    ) -> None:
        self._engine = engine
        self._decoding = decoding
        self._dead_letters = dead_letters
        self._ledger = ledger
        self._reading = ReadingWatch()
        self.held: dict[int, str] = {}
        """Partitions for which somebody must act, and why."""
        self.suppressions = ""
        """Why it is not known who is suppressed, if there is more to say."""

    def note_lag(self, lag: Mapping[int, Lag], *, paused: bool) -> None:
        """Note how far each partition is behind; `paused`: nothing at all should be read."""
        unread = {number: (each.position, each.end) for number, each in lag.items()}
        self._reading.note(unread, unread if paused else self._known(), monotonic())

    def of_now(self) -> dict[int, Stalled]:
        """The stalled partitions, each with its reason."""
        still = self._reading.still(monotonic())
        return {**_each(still, Stall.READING), **self._known()}

    def _known(self) -> dict[int, Stalled]:
        """Partitions with a known reason. A later reason takes precedence over an earlier one."""
        engine = self._engine
        restoring = [number for number in engine.assigned if not engine.is_restored(number)]
        return {
            **_each(self._decoding.waiting_partitions, Stall.REGISTRY),
            **{number: Stalled(reason) for number, reason in engine.stalled.items()},
            **_each(() if engine.is_member(clock()) else engine.assigned, Stall.MEMBERSHIP),
            **_told(self._ledger.stalled, Stall.LEDGER),
            **_told(self._dead_letters.stalled, Stall.DEAD_LETTERS),
            **_each(restoring, Stall.RESTORING),
            **_told(self._blind, Stall.SUPPRESSIONS),
            **_told(self.held, Stall.HELD),
        }

    @property
    def _blind(self) -> dict[int, str]:
        """Nothing of any partition is sent while it is not known who is suppressed."""
        if self._engine.knows_suppressions:
            return {}
        return dict.fromkeys(self._engine.assigned, self.suppressions)


def _each(numbers: Iterable[int], reason: Stall) -> dict[int, Stalled]:
    return dict.fromkeys(numbers, Stalled(reason))


def _told(details: Mapping[int, str], reason: Stall) -> dict[int, Stalled]:
    return {number: Stalled(reason, detail) for number, detail in details.items()}
