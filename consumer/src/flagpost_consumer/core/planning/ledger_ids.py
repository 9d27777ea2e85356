"""How visitor and account ids are written to the ledger: as they are, or keyed with a secret.

In: ids, and the key of `privacy.key_file`. Out: texts for the ledger, and keys by which duplicates are recognised.
Without the key nobody can find out whose they are, not even by trying every possible id: so destroying the key erases
them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from flagpost_consumer.core.planning.visitor_names import both_names

MAX_TEXT_CHARACTERS = 1000
"""Longer ids and names are cut in the ledger: one entry must fit in a record, whatever an event holds."""
HASH_BYTES = 16
PREFIX = "keyed:"


@dataclass(frozen=True, slots=True)
class LedgerIds:
    """Converts ids to what the ledger holds."""

    key: bytes = field(default=b"", repr=False)
    """At most 64 bytes; empty: ids are written as they are."""

    def of(self, target_id: str | None) -> str | None:
        """The ledger's text for an id."""
        if target_id is None or not self.key:
            return cut(target_id)
        digest = hashlib.blake2b(
            target_id.encode(), digest_size=HASH_BYTES, key=self.key, person=b"ledger id"
        )
        return PREFIX + digest.hexdigest()

    def names_of(self, visitor_id: str) -> frozenset[str]:
        """All texts that may stand for a visitor: the ledger may be older than the key, or than
        `mapping.anonymous`.
        """
        names = (name for each in both_names(visitor_id) for name in (cut(each), self.of(each)))
        return frozenset(name for name in names if name is not None)

    def dedupe_key(self, key: bytes) -> bytes:
        """The ledger's form of a dedupe key. The key is made of an id, so nobody must be able to find it by trying
        all ids.
        """
        if not self.key:
            return key
        return hashlib.blake2b(key, digest_size=HASH_BYTES, key=self.key, person=b"dedupe key").digest()


PLAIN = LedgerIds()


def cut(text: str | None) -> str | None:
    """A text, cut to the ledger's maximum length."""
    return text if text is None or len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS]
