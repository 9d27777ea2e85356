"""What stands for a visitor where many are remembered: the id, or the digest of a long one.

In: ids. Out: texts of at most `LONG_ID_CHARACTERS`.
"""

from __future__ import annotations

import hashlib

LONG_ID_CHARACTERS = 256
"""A longer visitor id is not kept while its lane rests, or endpoints remember it: there may be thousands."""


def name_of_lane(visitor_id: str) -> str:
    """The id, or what stands for a long one."""
    if len(visitor_id) <= LONG_ID_CHARACTERS:
        return visitor_id
    return "long id " + hashlib.blake2b(visitor_id.encode(), digest_size=16).hexdigest()
