"""What the loop's timers can do; apart from the service, for whoever simulates it."""

from __future__ import annotations

TIMER_SLACK_SECONDS = 0.001
"""uvloop's timers have a resolution of 1 ms: one that fires early would only have to be set again."""
