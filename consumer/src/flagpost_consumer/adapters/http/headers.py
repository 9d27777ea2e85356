"""The headers of every request."""

from __future__ import annotations

IDENTITY = {"accept-encoding": "identity"}
"""Sent with every request: answers are not unpacked."""
