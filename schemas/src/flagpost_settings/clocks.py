"""How far clocks may differ: the gateway and the consumer must agree, or one would refuse the other's events.

In: plain values. Out: the one key of the section `delivery` that both need.
"""

from __future__ import annotations

from typing import Final

from flagpost_settings.section import Seconds, Section

MAX_FUTURE_SECONDS: Final = 300.0
"""How far ahead of our clock an event may be by default."""


class DeliveryClocks(Section, extra="ignore"):
    """The key of the consumer's section that the gateway uses too."""

    max_future_seconds: Seconds = MAX_FUTURE_SECONDS
