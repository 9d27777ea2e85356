"""Moments that may never come: seconds on the monotonic clock, or None.

In: when things are due. Out: which of them is first, or last.
"""

from __future__ import annotations


def is_now(moment: float | None, now: float) -> bool:
    """Whether a moment has come."""
    return moment is not None and moment <= now


def earliest(*moments: float | None) -> float | None:
    """The first of several moments; None if none of them ever comes."""
    return min((moment for moment in moments if moment is not None), default=None)


def latest(first: float | None, second: float | None) -> float | None:
    """When both moments have come; None if one of them never does."""
    return None if first is None or second is None else max(first, second)
