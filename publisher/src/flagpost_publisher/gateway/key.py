"""A write key, as the gateway knows it: by its name, and what may be sent with it.

In: nothing. Out: frozen values. The key itself is nowhere here, so that a `Key` may be logged and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SentType(StrEnum):
    """What a message says that it is: of `/v1/events`, and of Segment's API."""

    DECISION = "decision"
    TRACK = "track"
    VISITOR = "visitor"
    ACCOUNT = "account"
    IDENTIFY = "identify"
    GROUP = "group"
    PAGE = "page"
    SCREEN = "screen"
    ALIAS = "alias"


EVERY_TYPE: Final = frozenset(SentType)
PUBLIC_TYPES: Final = frozenset({SentType.TRACK, SentType.PAGE})
"""What may be sent with a key that everybody can read in a page: nothing that changes a visitor or an account."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key."""

    name: str
    types: frozenset[SentType] = EVERY_TYPE
    """What may be sent with it."""
    events_per_second: float | None = None
    """How many events; None: as many as we can."""
    origins: frozenset[str] = frozenset()
    """Where the pages are that send with it. A key that has some is public."""

    @property
    def is_public(self) -> bool:
        """Whether everybody may know it."""
        return bool(self.origins)


def is_stranger(key: Key | None) -> bool:
    """Whether whoever sends has shown nothing by it that others do not know."""
    return key is None or key.is_public
