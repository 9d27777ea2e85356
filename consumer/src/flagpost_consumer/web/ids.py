"""Ids of people on the page: hidden, unless `web.show_ids`.

In: an id. Out: the id, or a short word that is the same for the same id as long as this process lives, and reveals
nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from flagpost_consumer.core.planning.legible import legible

HIDDEN: Final = '"(id hidden)"'
_QUOTED: Final = re.compile(r'"(.*)"')
"""The name in one of our sentences, as `legible.quoted` writes it; it may contain quotes itself."""


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

    def why(self, detail: str, status: int | None, found: str | None) -> str:
        """Why a delivery ended. With a status the text quotes Pendo's answer, which may name anybody in any
        spelling; else the sentence is ours, and only a name that it quotes can contain the id `found`.
        """
        if self.are_shown:
            return detail
        if status is not None:
            return "(Pendo's answer is hidden, as ids are)"
        return _QUOTED.sub(lambda name: HIDDEN if _may_name(name[1], found) else name[0], detail)


def _may_name(name: str, found: str | None) -> bool:
    """Whether a quoted name may contain an id; one that was cut may."""
    if not found:
        return False
    # What is in quotes went through `legible`, which shows some characters in a form of its own.
    sought = legible(found, len(found)).casefold()
    return name.endswith("…") or sought in name.casefold()
