"""Segment's HTTP tracking API, so that its server libraries work with another host.

In: parsed request bodies. Out: Flagpost events, and what was set aside by reason: one front for each path.
"""

from flagpost_publisher.gateway.segment.mapping import SetAside
from flagpost_publisher.gateway.segment.requests import FRONTS, MAX_BATCH_BYTES, answer
from flagpost_publisher.gateway.segment.times import NotBelieved

__all__ = ["FRONTS", "MAX_BATCH_BYTES", "NotBelieved", "SetAside", "answer"]
