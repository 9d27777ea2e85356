"""Metadata values, coalesced, batched and settled in order.

In: planned metadata deliveries, answers. Out: attempts, endings. Called by the engine alone.
"""
