"""What the ledger says of a partition when it is assigned: the state that its last member had.

In: the committed position, then the ledger's records in order. Out: the claims that may have duplicates, what is
settled beyond the position, and how much of the ledger is still needed. The thread that reads the ledger fills it,
outside of the engine, and hands it over when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.ledger_window import LedgerWindow
from flagpost_consumer.core.books.settled_before import SettledBefore
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import DedupeSettings

Settled = tuple[int, Kind, Outcome | None, bytes | None, int | None]
"""(offset, kind, outcome, dedupe key of 16 bytes, occurred_at in epoch ms) of one settlement in the ledger; the
outcome is None if only a later release knows it.
"""


NO_OFFSET = 2**63
"""Beyond every offset: nothing from there on is settled."""


SLACK_OFFSETS = 1_000_000
"""A new leader may report an end slightly below what was read from the one before. Each offset takes a byte, if the
ledger has it: a ledger with offsets far apart would take 4 KB for each.
"""


class Restoration:
    """The state of one partition, as far as it has been read."""

    def __init__(
        self,
        position: int,
        settings: DedupeSettings,
        counts: DedupeCounts | None = None,
        settles_from: int = 0,
        log_end: int = NO_OFFSET,
    ) -> None:
        """`position`: the offset from which records will be read. `settles_from`: ledger records below this offset
        are about records that are no longer in the log; only their claims are used. `log_end`: where the log ended
        when the restore began; settlements far beyond it are ignored.

        Partitions that are restored side by side share `counts`, and so the limit of `dedupe.max_entries`.
        """
        self.position = position
        self._settled_below = log_end + SLACK_OFFSETS
        self.settled = SettledBefore()
        self.epochs: dict[int, int] = {}
        """The last offset that is settled of each leader epoch, as far as the ledger tells it."""
        self.dedupe = Dedupe(
            settings.ttl_seconds, settings.max_entries, DedupeCounts() if counts is None else counts
        )
        self.window = LedgerWindow()
        self.window.settles_from = settles_from

    def take(self, ledger_offset: int, settlements: Iterable[Settled]) -> int:
        """Take in one record of the ledger; returns how many settlements it had."""
        if ledger_offset < self.window.settles_from:
            return self.take_claims(ledger_offset, settlements)
        return self._take(ledger_offset, settlements, self.position)

    def take_epochs(self, ledger_offset: int, last_of_each: Mapping[int, int]) -> None:
        """Note which leaders wrote what a ledger record settles."""
        if ledger_offset >= self.window.settles_from:
            for epoch, last in last_of_each.items():
                self.epochs[epoch] = max(last, self.epochs.get(epoch, -1))

    def take_claims(self, ledger_offset: int, settlements: Iterable[Settled]) -> int:
        """Take in the claims of a ledger record that settles nothing here, because it is about another topic or about
        records that are gone. Claims are about keys and times, wherever the records were read.
        """
        return self._take(ledger_offset, settlements, NO_OFFSET)

    def disown(self, ledger_offset: int) -> None:
        """What was taken in so far, below this offset of the ledger, is about another topic: only its claims stay."""
        self.settled = SettledBefore()
        self.epochs = {}
        self.window.settles_from = ledger_offset

    def _take(self, ledger_offset: int, settlements: Iterable[Settled], position: int) -> int:
        count, newest_claim_ms, highest_offset = 0, -1, -1
        add, restore, settled_below = self.settled.add, self.dedupe.restore, self._settled_below
        for offset, kind, outcome, key, occurred_at in settlements:
            count += 1
            if offset < settled_below:
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
        settles = -1 if position == NO_OFFSET else highest_offset
        self.window.note(ledger_offset, count, newest_claim_ms, settles)
        return count

    def finish(self, ledger_end: int) -> None:
        """The ledger has been read up to here; move the counts to whoever takes the partition over."""
        self.dedupe.count_in(DedupeCounts())
        self.window.begin_at(ledger_end)
