"""Whom `flagpost explain` is about, and which records and settlements are theirs.

In: an id as Pendo or the service knows it, the form of the ledger's ids. Out: the key of their records, their names
in the ledger. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flagpost_consumer.core.planning.ledger_ids import LedgerIds
from flagpost_consumer.core.planning.visitor_names import ANONYMOUS_PREFIX
from flagpost_schemas import AccountMetadata, Event, LedgerEntry, TrackEvent


@dataclass(frozen=True, slots=True)
class Subject:
    """A visitor, identified or anonymous, or an account."""

    id: str
    is_account: bool
    called: frozenset[str]
    """The id, also without Pendo's prefix for anonymous visitors, which the service's own id may lack."""
    names: frozenset[str]
    """All that may stand for them in the ledger."""

    @classmethod
    def of(cls, given: str, ids: LedgerIds, *, is_account: bool) -> Self:
        """The subject with a given id."""
        bare = given if is_account else given.removeprefix(ANONYMOUS_PREFIX)
        return cls(given, is_account, frozenset({given, bare or given}), ids.names_of(given))

    @property
    def keys(self) -> frozenset[bytes]:
        """The keys that their records may have."""
        return frozenset(name.encode() for name in self.called)

    @property
    def target(self) -> str:
        """Pendo's name for its kind."""
        return "account" if self.is_account else "visitor"

    def has(self, event: Event) -> bool:
        """Whether an event is the subject's."""
        if self.is_account or isinstance(event, AccountMetadata):
            return self.is_account and isinstance(event, AccountMetadata) and event.account_id == self.id
        if isinstance(event, TrackEvent) and event.visitor_id is None:
            return event.anonymous_id in self.called
        return event.visitor_id in self.called

    def is_named_by(self, entry: LedgerEntry) -> bool:
        """Whether a settlement names the subject."""
        if self.is_account:
            return entry.kind == "account_metadata" and entry.account_id in self.names
        return entry.visitor_id in self.names

    def is_named_in_ledger(self, event: Event) -> bool:
        """Whether the ledger names the subject for an event: it contains no anonymous ids."""
        return not isinstance(event, TrackEvent) or event.visitor_id is not None
