"""Ids of people on the page: hidden, unless `web.show_ids`.

In: an id. Out: the id, or a short word that is the same for the same id as long as this process lives, and reveals
nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ids:
    """Shows or hides ids."""

    are_shown: bool
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def shown(self, found: str | None) -> str | None:
        """The id, or the word for it."""
        if found is None or self.are_shown:
            return found
        digest = hashlib.blake2b(found.encode("utf-8", "surrogatepass"), key=self._key, digest_size=4)
        return f"hidden-{digest.hexdigest()}"

    def without(self, text: str, found: str | None) -> str:
        """A text of ours, without an id that may be in it."""
        return text if self.are_shown or not found else text.replace(found, "(id hidden)")

    def why(self, detail: str, status: int | None, found: str | None) -> str:
        """Why a delivery ended. With a status the text quotes Pendo's answer, which may name anybody in any
        spelling.
        """
        if self.are_shown or status is None:
            return self.without(detail, found)
        return "(Pendo's answer is hidden, as ids are)"
