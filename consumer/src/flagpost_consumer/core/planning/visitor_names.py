"""The names of a visitor: those of anonymous visitors in Pendo, and short ones for long ids.

In: ids. Out: names. Where many are remembered, a name is at most `LONG_ID_CHARACTERS` long, besides its prefix.
"""

from __future__ import annotations

import hashlib

ANONYMOUS_PREFIX = "_PENDO_T_"
"""Pendo recognises anonymous visitors by it (Pendo's help, "Anonymous visitors")."""
LONG_ID_CHARACTERS = 256
"""A longer visitor id is replaced by a digest in lanes and endpoints: they may remember thousands."""


def anonymous_name(anonymous_id: str) -> str | None:
    """The name that Pendo's agent gives to an anonymous visitor; None if the id is empty but for the prefix."""
    bare = anonymous_id.removeprefix(ANONYMOUS_PREFIX)
    return ANONYMOUS_PREFIX + bare if bare else None


def other_name(visitor_id: str) -> str:
    """A visitor's name under the other value of `mapping.anonymous`: with Pendo's prefix, or without it."""
    bare = visitor_id.removeprefix(ANONYMOUS_PREFIX)
    return bare if bare != visitor_id else ANONYMOUS_PREFIX + bare


def both_names(visitor_id: str) -> tuple[str, str]:
    """All names of a visitor in the topics, whatever `mapping.anonymous` was; the given name first."""
    return visitor_id, other_name(visitor_id)


def name_of_lane(visitor_id: str) -> str:
    """The id, or a digest for a long one. The two names of a visitor differ only in the prefix."""
    if len(visitor_id) <= LONG_ID_CHARACTERS:
        return visitor_id
    bare = visitor_id.removeprefix(ANONYMOUS_PREFIX)
    if len(bare) <= LONG_ID_CHARACTERS:
        return visitor_id
    digest = hashlib.blake2b(bare.encode(), digest_size=16).hexdigest()
    return f"{visitor_id[: -len(bare)]}long id {digest}"
