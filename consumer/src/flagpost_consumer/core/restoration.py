"""What the ledger says of a partition when it is assigned: the state that its last member had.

In: the committed position, then the ledger's records in order. Out: the claims that may be repeated, what is
settled beyond the position, and how much of the ledger is still needed. It is filled outside of the engine, by
the thread that reads the ledger, and handed over when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable

from flagpost_consumer.core.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.ledger_window import LedgerWindow
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_consumer.core.settled_before import SettledBefore

Settled = tuple[int, Kind, Outcome | None, bytes | None, int | None]
"""(offset, kind, outcome, dedupe key of 16 bytes, occurred_at in epoch ms) of one settlement in the ledger; no
outcome: one that only a later release writes."""


class Restoration:
    """The state of one partition, as far as it has been read."""

    def __init__(self, position: int, settings: DedupeSettings, counts: DedupeCounts | None = None) -> None:
        """`position`: the offset from which records will be read.

        Partitions that are restored side by side share `counts`, and so the limit of `dedupe.max_entries`.
        """
        self.position = position
        self.settled = SettledBefore()
        self.dedupe = Dedupe(
            settings.ttl_seconds, settings.max_entries, DedupeCounts() if counts is None else counts
        )
        self.window = LedgerWindow()

    def take(self, ledger_offset: int, settlements: Iterable[Settled]) -> int:
        """Take in one record of the ledger; gives how many settlements it had."""
        count, newest_claim_ms, highest_offset = 0, -1, -1
        add, restore, position = self.settled.add, self.dedupe.restore, self.position
        for offset, kind, outcome, key, occurred_at in settlements:
            count += 1
            if offset > highest_offset:  # noqa: PLR1730 - max() takes longer, a million times
                highest_offset = offset
            if offset >= position:
                add(offset, kind)
            if key is None or occurred_at is None:
                continue
            if outcome is Outcome.DELIVERED:
                if occurred_at > newest_claim_ms:  # noqa: PLR1730 - as above
                    newest_claim_ms = occurred_at
                restore(key, occurred_at, offset)
            elif outcome is Outcome.DUPLICATE:
                self.dedupe.observe(occurred_at)
        self.window.note(ledger_offset, count, newest_claim_ms, highest_offset)
        return count

    def finish(self, ledger_end: int) -> None:
        """The ledger has been read up to here; what was counted is for whoever takes the partition over."""
        self.dedupe.count_in(DedupeCounts())
        self.window.begin_at(ledger_end)
