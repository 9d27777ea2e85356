"""The names that a visitor goes by: as Pendo's agent names anonymous ones, and where many are remembered.

In: ids. Out: names. Where many are remembered a name is at most `LONG_ID_CHARACTERS` long, but for its prefix.
"""

from __future__ import annotations

import hashlib

ANONYMOUS_PREFIX = "_PENDO_T_"
"""By it Pendo tells anonymous visitors from identified ones (Pendo's help, "Anonymous visitors")."""
LONG_ID_CHARACTERS = 256
"""A longer visitor id is not kept while its lane rests, or endpoints remember it: there may be thousands."""


def anonymous_name(anonymous_id: str) -> str | None:
    """How Pendo's agent would name an anonymous visitor; None where nothing is left to name it by."""
    bare = anonymous_id.removeprefix(ANONYMOUS_PREFIX)
    return ANONYMOUS_PREFIX + bare if bare else None


def other_name(visitor_id: str) -> str:
    """What a visitor is called by the other way of `mapping.anonymous`: with Pendo's prefix, or without it."""
    bare = visitor_id.removeprefix(ANONYMOUS_PREFIX)
    return bare if bare != visitor_id else ANONYMOUS_PREFIX + bare


def both_names(visitor_id: str) -> tuple[str, str]:
    """All that a visitor may be called in the topics, whatever `mapping.anonymous` was; the given name first."""
    return visitor_id, other_name(visitor_id)


def name_of_lane(visitor_id: str) -> str:
    """The id, or what stands for a long one; of both names of a visitor the same but for the prefix."""
    if len(visitor_id) <= LONG_ID_CHARACTERS:
        return visitor_id
    bare = visitor_id.removeprefix(ANONYMOUS_PREFIX)
    if len(bare) <= LONG_ID_CHARACTERS:
        return visitor_id
    digest = hashlib.blake2b(bare.encode(), digest_size=16).hexdigest()
    return f"{visitor_id[: -len(bare)]}long id {digest}"
