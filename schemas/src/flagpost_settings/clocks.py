"""How far clocks may differ: what the gateway and the consumer must agree on, or one would refuse the other's events.

In: plain values. Out: the one key of the section `delivery` that concerns both.
"""

from __future__ import annotations

from typing import Final

from flagpost_settings.section import Seconds, Section

MAX_FUTURE_SECONDS: Final = 300.0
"""How far ahead of our clock an event may be, where the settings say nothing else."""


class DeliveryClocks(Section, extra="ignore"):
    """The key of the consumer's section that the gateway keeps to as well."""

    max_future_seconds: Seconds = MAX_FUTURE_SECONDS
