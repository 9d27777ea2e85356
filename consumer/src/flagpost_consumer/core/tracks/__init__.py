"""Each visitor's lane of track deliveries, and the requests that start from it.

In: planned track deliveries, answers. Out: attempts, endings. Called by the engine alone.
"""
