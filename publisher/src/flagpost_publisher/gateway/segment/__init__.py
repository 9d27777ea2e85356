"""Segment's HTTP tracking API, so that its server libraries work with their host changed.

In: parsed request bodies. Out: Flagpost events, and what was set aside by reason (see `requests`).
"""
