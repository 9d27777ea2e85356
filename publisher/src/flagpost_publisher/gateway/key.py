"""A write key in the gateway: its name, and what may be sent with it.

In: nothing. Out: frozen values. The key itself is not in them, so that a `Key` may be logged and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SentType(StrEnum):
    """The type of a message: of `/v1/events`, and of Segment's API."""

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
    """The types that may be sent with it."""
    events_per_second: float | None = None
    """Events a second; None: no limit."""
    origins: frozenset[str] = frozenset()
    """The origins of the pages that send with it. A key with origins is public."""

    @property
    def is_public(self) -> bool:
        """Whether everybody may know it."""
        return bool(self.origins)


def is_stranger(key: Key | None) -> bool:
    """Whether the sender has shown no key, or only a public one."""
    return key is None or key.is_public
