"""Ids of people on the page: hidden, unless `web.show_ids`.

In: an id. Out: the id, or a short word that is the same for the same id as long as this process lives, and tells
nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ids:
    """What becomes of ids."""

    are_shown: bool
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def shown(self, found: str | None) -> str | None:
        """The id, or what stands for it."""
        if found is None or self.are_shown:
            return found
        digest = hashlib.blake2b(found.encode("utf-8", "surrogatepass"), key=self._key, digest_size=4)
        return f"hidden-{digest.hexdigest()}"

    def without(self, text: str, found: str | None) -> str:
        """A text of somebody else's that may hold an id, such as Pendo's answer, without it."""
        return text if self.are_shown or not found else text.replace(found, "(id hidden)")
